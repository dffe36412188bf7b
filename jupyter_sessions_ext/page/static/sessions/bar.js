// The bar over the list: how many there are, how many are selected, and what can be done with them.

import { button, put } from "./dom.js";
import { count } from "./format.js";
import { isLive } from "./session.js";
import { ACTIONS } from "./words.js";

const counted = document.getElementById("count");
const chosen = document.getElementById("chosen");
const bulk = document.getElementById("bulk");

export class Bar {
  constructor({ act, chooseAll, clear }) {
    chosen.addEventListener("click", (event) => {
      const what = event.target.closest("[data-act]")?.dataset.act;
      if (what === "all") chooseAll();
      if (what === "clear") clear();
    });
    for (const [name, { verb, danger }] of Object.entries(ACTIONS)) {
      const onclick = () => act(name);
      bulk.append(
        button(`${verb}…`, {
          icon: name,
          class: danger ? "warning" : null,
          "data-action": name,
          onclick,
        }),
      );
    }
  }

  /** Show a page of the list, and what of it is selected. */
  show({ items, total }, { first, selection }) {
    const selected = selection.count(total);
    const all = count(total, "session");
    const [from, to] = [first + 1, first + items.length].map((n) => n.toLocaleString("en"));
    const text = items.length < total && items.length ? `${from}–${to} of ${all}` : all;
    if (counted.textContent !== text) counted.textContent = text;
    chosen.hidden = bulk.hidden = !selected;
    if (!selected) return;
    put(
      chosen,
      `${selected.toLocaleString("en")} selected`,
      ...(selected < total
        ? [
            button(`Select all ${total.toLocaleString("en")} that match`, {
              class: "link",
              "data-act": "all",
            }),
          ]
        : []),
      button("Clear selection", { class: "link", "data-act": "clear" }),
    );
    const states = selection.all
      ? ["live", "dormant"]
      : selection.items.map((item) => (isLive(item) ? "live" : "dormant"));
    for (const element of bulk.children) {
      const { needs } = ACTIONS[element.dataset.action];
      element.disabled = Boolean(needs) && !states.includes(needs);
    }
  }
}
