// Tabs, as the ARIA practices have them: arrows go from one to the next.

import { h } from "./dom.js";

/** Make tabs of `{name: label}`, the first one chosen; `onChoose` is told when another is. */
export class Tabs {
  #tabs = [];
  panels = {};

  constructor(labels, onChoose) {
    this.onChoose = onChoose;
    for (const [name, label] of Object.entries(labels)) {
      const ids = { tab: `tab-${name}`, panel: `panel-${name}` };
      this.#tabs.push(
        h(
          "button",
          {
            type: "button",
            role: "tab",
            id: ids.tab,
            "aria-controls": ids.panel,
            "data-name": name,
            onclick: () => this.choose(name),
          },
          label,
        ),
      );
      this.panels[name] = h("div", {
        role: "tabpanel",
        id: ids.panel,
        "aria-labelledby": ids.tab,
        tabindex: 0,
      });
    }
    this.list = h(
      "div",
      {
        role: "tablist",
        "aria-label": "About this session",
        onkeydown: (event) => this.#move(event),
      },
      this.#tabs,
    );
    this.#show(this.#tabs[0].dataset.name);
  }

  choose(name) {
    this.#show(name);
    this.onChoose(name);
  }

  #show(name) {
    this.chosen = name;
    for (const tab of this.#tabs) {
      const on = tab.dataset.name === name;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
      this.panels[tab.dataset.name].hidden = !on;
    }
  }

  #move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = this.#tabs.indexOf(event.target) + step + this.#tabs.length;
    const tab = this.#tabs[at % this.#tabs.length];
    this.choose(tab.dataset.name);
    tab.focus();
  }
}
