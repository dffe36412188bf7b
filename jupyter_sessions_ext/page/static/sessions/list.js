// The list of sessions: its columns, its pages, and what is shown where there is nothing.

import { documentUrl, FRONT_END } from "./api.js";
import { button, h, icon } from "./dom.js";
import {
  activity,
  clients,
  cpu,
  kernelName,
  memory,
  pathOf,
  since,
  stateOf,
  titleOf,
} from "./session.js";
import { Table } from "./table.js";

export const PAGE_SIZE = 100;
const table = document.getElementById("list");
const empty = document.getElementById("empty");

const openLink = (session) => {
  const url = documentUrl(session);
  if (!url) return "";
  const label = `Open ${pathOf(session)} in ${FRONT_END}`;
  return h(
    "a",
    { class: "icon-button", href: url, target: "_blank", "aria-label": label, title: label },
    icon("open"),
  );
};

/** Make the table; `choose` is told what is ticked, `open` whose drawer is asked for. */
export function makeList({ onSort, choose, open, selected }) {
  const all = h("input", { type: "checkbox", "aria-label": "Select all on this page" });
  const columns = [
    {
      name: "select",
      label: "Select",
      quiet: true,
      head: all,
      update: (cell, item) => updateTick(cell, item, selected),
    },
    { name: "state", label: "State", show: (session) => h("div", {}, stateOf(session)) },
    {
      name: "path",
      label: "Session",
      sort: "path",
      show: (item) =>
        h("button", { type: "button", class: "open", title: pathOf(item) }, titleOf(item)),
    },
    {
      name: "kernel",
      label: "Kernel",
      show: (item) => h("span", { title: item.kernel_name }, kernelName(item.kernel_name)),
    },
    { name: "activity", label: "Last activity", sort: "last_activity", first: "-", show: activity },
    {
      name: "created",
      label: "Created",
      sort: "created_at",
      first: "-",
      show: (item) => since(item.created_at),
    },
    { name: "cpu", label: "CPU", sort: "cpu", first: "-", numeric: true, show: cpu },
    { name: "memory", label: "Memory", sort: "memory", first: "-", numeric: true, show: memory },
    { name: "clients", label: "Clients", numeric: true, show: clients },
    ...(FRONT_END ? [{ name: "link", label: "Open", quiet: true, show: openLink }] : []),
  ];
  const list = new Table(table, columns, { onSort });
  all.addEventListener("change", () => choose(list.items, all.checked));
  table.tBodies[0].addEventListener("change", (event) =>
    choose([list.itemOf(event)], event.target.checked),
  );
  table.tBodies[0].addEventListener("click", (event) => {
    if (event.target.closest("a, input, .c-select")) return;
    const item = list.itemOf(event);
    if (item && !getSelection().toString()) open(item);
  });
  return Object.assign(list, {
    tickAll: (items) => tickAll(all, items.filter(selected).length, items.length),
  });
}

function updateTick(cell, item, selected) {
  const label = `Select ${pathOf(item)}`;
  if (!cell.firstChild)
    cell.append(h("label", { class: "tick" }, h("input", { type: "checkbox" })));
  const box = cell.querySelector("input");
  box.checked = selected(item);
  box.setAttribute("aria-label", label);
}

function tickAll(box, chosen, shown) {
  box.checked = shown > 0 && chosen === shown;
  box.indeterminate = chosen > 0 && chosen < shown;
  box.disabled = !shown;
}

/** Show the list, or why there is nothing in it. */
export function showEmpty({ items, filtered, onReset }) {
  table.hidden = !items.length;
  empty.hidden = items.length > 0;
  if (items.length || empty.dataset.filtered === String(filtered)) return;
  empty.dataset.filtered = filtered;
  empty.replaceChildren(...(filtered ? nothingFound(onReset) : lesson()));
}

function nothingFound(onReset) {
  return [
    h("h2", {}, "No session matches"),
    h("p", {}, button("Clear filters", { onclick: onReset })),
  ];
}

function lesson() {
  const home = document.querySelector("header a.button")?.getAttribute("href");
  return [
    h("h2", {}, "No sessions yet"),
    h(
      "p",
      {},
      "A session ties a document to a kernel. Open a notebook, and its session is listed here.",
    ),
    h(
      "dl",
      {},
      h("dt", {}, stateOf({ state: "live", kernel: {} })),
      h("dd", {}, "Its kernel runs, with all its variables, and outlives a server that is killed."),
      h("dt", {}, stateOf({ state: "dormant", reason: "" })),
      h(
        "dd",
        {},
        "Its kernel is gone: it was culled, it died, or the computer was restarted. Open the " +
          "document again, or revive the session here: it is back, with a new kernel.",
      ),
    ),
    home ? h("p", {}, h("a", { class: "button primary", href: home }, `Open ${FRONT_END}`)) : null,
  ].filter(Boolean);
}
