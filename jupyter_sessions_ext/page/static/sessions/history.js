// The history of a session, in words.

import { now } from "./api.js";
import { h, timeElement } from "./dom.js";

const SAID = {
  created: () => "Created",
  renamed: (detail) => `Renamed ${detail}`,
  kernel_changed: (detail) => `Kernel changed ${detail}`,
  absorbed: (detail) => `Took over the history of a dormant ${detail}`,
  dormant: (detail) => `Turned dormant${detail ? `: ${detail}` : ""}`,
  revived: () => "Revived, with a new kernel",
  recovered: () => "Recovered: a new server took over its running kernel",
  deleted: (detail) => `Deleted${detail ? `: ${detail}` : ""}`,
  kept: () => "Kept: its kernel could not be shut down",
  imported: () => "Imported",
  expired: () => "Expired: it was dormant for too long",
};

/** Return a line of the history. */
export function eventElement(event) {
  const said = SAID[event.action]?.(event.detail) ?? `${event.action} ${event.detail}`;
  return h(
    "li",
    { "data-action": event.action },
    h("span", { class: "said" }, said),
    h(
      "span",
      { class: "detail" },
      timeElement(event.time, now()),
      event.user === "system" ? "" : `, by ${event.user}`,
    ),
  );
}
