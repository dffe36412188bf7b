// The drawer of one session: what is known of it, its history, its log, and what can be done.

import {
  documentUrl,
  FRONT_END,
  readEvents,
  readLog,
  readSession,
  readTranscript,
  Refused,
  transcriptUrl,
} from "./api.js";
import { backToList } from "./box.js";
import { details } from "./details.js";
import { button, h, icon, iconButton, put, saveFile } from "./dom.js";
import { eventElement } from "./history.js";
import { isLive, nameOf, pathOf, stateOf } from "./session.js";
import { Tabs } from "./tabs.js";
import { ACTIONS, explain } from "./words.js";

const TABS = { details: "Details", history: "History", log: "Log" };
const dialog = document.getElementById("drawer");

/** It shows one session at a time; `act` is told an action and the session. */
export class Drawer {
  #session = null;
  #gone = false;
  #events = [];
  #next = null;
  #withoutLog;
  #head;
  #tabs;

  constructor(act) {
    this.act = act;
    dialog.addEventListener("close", () => {
      this.#session = null;
      backToList();
    });
    // A click beside the drawer is one on the dialog itself.
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  open(session) {
    this.#session = session;
    this.#gone = false;
    this.#events = [];
    this.#withoutLog = undefined;
    this.#tabs = new Tabs(TABS, () => this.refresh());
    this.#head = {
      heading: h("h2", { id: "drawer-heading", tabindex: -1 }),
      where: h("p", { class: "where" }),
      actions: h("div", {
        class: "actions",
        role: "group",
        "aria-label": "Actions",
        onclick: (event) => this.#clicked(event),
      }),
      problem: h("p", { class: "problem", role: "alert" }),
    };
    const close = iconButton("Close", "close", {
      class: "icon-button close",
      onclick: () => dialog.close(),
    });
    const { panels, list } = this.#tabs;
    panels.history.append(
      h("ol", { class: "history" }),
      button("Show older", { hidden: true, onclick: () => this.#readOlder() }),
    );
    panels.log.append(
      h("p", { class: "hint" }),
      h("pre", { tabindex: 0, "aria-label": "End of the log" }),
    );
    dialog.replaceChildren(
      h(
        "div",
        { class: "inside" },
        h("header", {}, Object.values(this.#head), close),
        list,
        Object.values(panels),
      ),
    );
    this.#show();
    if (!dialog.open) dialog.showModal();
    this.#head.heading.focus();
    this.refresh();
  }

  close() {
    dialog.close();
  }

  /** Read again what is shown, if the drawer is open. */
  async refresh() {
    const id = this.#session?.id;
    if (!id || this.#gone) return;
    const shown = () => this.#session?.id === id && !this.#gone;
    try {
      const [{ item }] = await Promise.all([readSession(id), this.#readTab(id, shown)]);
      if (!shown()) return;
      this.#session = item;
      put(this.#head.problem);
    } catch (error) {
      if (!shown() || !(error instanceof Refused)) return;
      if (error.status === 404) return this.setGone(id);
      put(this.#head.problem, icon("warning"), explain(error));
    }
    this.#show();
  }

  /** Show that this session is gone, if the drawer shows it. */
  setGone(id) {
    if (this.#session?.id !== id) return;
    this.#gone = true;
    put(
      this.#head.problem,
      icon("warning"),
      "This session is gone: it was deleted, or it expired.",
    );
    this.#show();
  }

  async #readTab(id, shown) {
    if (this.#tabs.chosen === "history") {
      const events = await readEvents(id);
      if (shown()) this.#showHistory(events);
    } else if (this.#tabs.chosen === "log") {
      const text = await this.#readLog(id);
      if (shown()) this.#showLog(text);
    }
  }

  /** Read the end of the log; null where none is kept, which is not asked again for that kernel. */
  async #readLog(id) {
    const kernel = this.#session.kernel?.id ?? null;
    if (this.#withoutLog === kernel) return null;
    try {
      return await readLog(id);
    } catch (error) {
      if (error.status !== 404) throw error;
      this.#withoutLog = kernel;
      return null;
    }
  }

  #showHistory({ items, next }) {
    const oldest = items.at(-1)?.id ?? 0;
    const older = this.#events.filter(({ id }) => id < oldest);
    if (!older.length) this.#next = next;
    this.#events = [...items, ...older];
    this.#listEvents();
  }

  #listEvents() {
    const [list, more] = this.#tabs.panels.history.children;
    put(list, ...this.#events.map(eventElement));
    more.hidden = !this.#next;
  }

  async #readOlder() {
    try {
      const { items, next } = await readEvents(this.#session.id, this.#next);
      this.#events.push(...items);
      this.#next = next;
      this.#listEvents();
    } catch (error) {
      put(this.#head.problem, icon("warning"), explain(error));
    }
  }

  /** Show the log, and stay at its end if that is where the reader is. */
  #showLog(text) {
    const [note, pre] = this.#tabs.panels.log.children;
    note.textContent = aboutLog(text);
    pre.hidden = !text;
    if (pre.textContent === text) return;
    const atEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 8;
    pre.textContent = text ?? "";
    if (atEnd) pre.scrollTop = pre.scrollHeight;
  }

  #show() {
    const session = this.#session;
    const { heading, where, actions } = this.#head;
    put(heading, nameOf(session));
    put(where, stateOf(session), h("span", { class: "folder" }, pathOf(session)));
    put(actions, ...(this.#gone ? [] : buttons(session)));
    put(this.#tabs.panels.details, details(session));
  }

  #clicked(event) {
    const action = event.target.closest("[data-act]")?.dataset.act;
    if (action) this.act(action, this.#session);
    if (event.target.closest("[data-transcript]")) {
      event.preventDefault(); // the link itself would lead away from here if it is refused
      this.#saveTranscript();
    }
  }

  async #saveTranscript() {
    const { problem } = this.#head;
    try {
      const { name, file } = await readTranscript(this.#session.id);
      saveFile(name, file);
      put(problem);
    } catch (error) {
      put(problem, icon("warning"), explain(error));
    }
  }
}

function aboutLog(text) {
  if (text === null) return "No log is kept of its kernel.";
  if (!text) return "The kernel has written nothing outside of cells.";
  return "The end of what the kernel wrote outside of cells. Keys and tokens are masked.";
}

/** Return what can be done with a session in its state. */
function buttons(session) {
  const url = documentUrl(session);
  const can = ([, { needs }]) => !needs || needs === (isLive(session) ? "live" : "dormant");
  const act = ([name, { verb, danger, asks }]) =>
    button(asks ? `${verb}…` : verb, {
      icon: name,
      class: danger ? "warning" : null,
      "data-act": name,
    });
  const [change, end] = [
    Object.entries(ACTIONS).filter(can).slice(0, -2),
    Object.entries(ACTIONS).slice(-2),
  ];
  return [
    url &&
      h(
        "a",
        { class: "button primary", href: url, target: "_blank" },
        icon("open"),
        h("span", {}, `Open in ${FRONT_END}`),
      ),
    ...change.map(act),
    button("Rename…", { icon: "rename", "data-act": "rename" }),
    h(
      "a",
      { class: "button", href: transcriptUrl(session.id), "data-transcript": true },
      icon("download"),
      h("span", {}, "Transcript"),
    ),
    ...end.map(act),
  ];
}
