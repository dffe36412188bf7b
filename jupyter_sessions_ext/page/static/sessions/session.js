// How a session is shown wherever it is: its state, its name, its kernel, its figures.

import { now } from "./api.js";
import { h, icon, timeElement } from "./dom.js";
import { percent, size, splitPath } from "./format.js";

let kernelNames = {};

/** Learn the names that users know kernels by. */
export function nameKernels(names) {
  kernelNames = names;
}

/** Return the name that users know a kernelspec by. */
export function kernelName(name) {
  return kernelNames[name] ?? name ?? "";
}

export const pathOf = (session) => session.path ?? session.id;
export const nameOf = (session) => splitPath(pathOf(session))[1] || pathOf(session);
export const isLive = (session) => session.state === "live";
export const isBusy = (session) => session.kernel?.execution_state === "busy";

// As JupyterLab has it: full while it runs code, else hollow.
const shapeOf = (session) => (isLive(session) ? (isBusy(session) ? "busy" : "idle") : "dormant");

/** Show the state as a shape and a word, and what the kernel does or why there is none. */
export function stateOf(session) {
  const live = isLive(session);
  const detail = live ? (session.kernel?.execution_state ?? "") : session.reason;
  return [
    h(
      "span",
      { class: "state", "data-state": session.state },
      icon(shapeOf(session)),
      live ? "Live" : "Dormant",
    ),
    detail ? h("span", { class: "detail", "data-execution": detail, title: detail }, ` ${detail}`) : null,
  ];
}

/** Show a path in two parts: the document's name, and the folder that it is in. */
export function titleOf(session) {
  const [folder, name] = splitPath(pathOf(session));
  const kind = session.type && session.type !== "notebook" ? session.type : "";
  const shown = kind && ![name, session.path].includes(session.name) ? session.name : "";
  return [
    h(
      "span",
      { class: "path" },
      h("span", { class: "folder" }, folder),
      h("span", { class: "name" }, name || folder),
    ),
    kind ? h("span", { class: "kind" }, [kind, shown].filter(Boolean).join(": ")) : null,
  ];
}

export const activity = (item) => timeElement(item.last_activity, now());
export const since = (iso) => (iso ? timeElement(iso, now()) : "");
export const cpu = (item) => (item.process ? percent(item.process.cpu_percent) : "");
export const memory = (item) => (item.process ? size(item.process.memory_bytes) : "");
export const clients = (item) => (item.connections ? String(item.connections) : "");
