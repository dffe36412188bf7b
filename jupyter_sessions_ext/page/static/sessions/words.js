// What the actions are called, what is lost by them, and what can be done where they are refused.

import { count, size } from "./format.js";
import { isBusy, isLive } from "./session.js";

export const ACTIONS = {
  revive: { verb: "Revive", doing: "Reviving", done: "revived", event: "revived", needs: "dormant" },
  interrupt: { verb: "Interrupt", doing: "Interrupting", done: "interrupted", needs: "live" },
  restart: { verb: "Restart", doing: "Restarting", done: "restarted", needs: "live", danger: true, asks: true },
  forget: { verb: "Forget", doing: "Forgetting", done: "forgotten", event: "deleted", asks: true },
  delete: { verb: "Delete", doing: "Deleting", done: "deleted", event: "deleted", danger: true, asks: true },
};

const HINTS = {
  400: "Open its document with another kernel, or delete the session.",
  403: "Ask whoever runs this server for the right to write sessions_admin.",
  404: "It is gone already: there is nothing to do.",
  501: "Open its document with another kernel, or delete the session.",
  503: "Nothing was changed. The server's log says what to do; then try again.",
};

const CONFLICTS = {
  revive: "Use the live session of its path, or delete one of the two.",
  interrupt: "It has no kernel: revive it first.",
  restart: "It has no kernel: revive it first.",
  attach: "Use the live session of that path, or choose another path.",
};

/** Say what can be done about a refusal. */
export function hint(action, status) {
  if (status === 409) return CONFLICTS[action] ?? "";
  return HINTS[status] ?? "The server's log says more. Try again.";
}

/** Say why a request failed, and what can be done. */
export function explain(error, action = "") {
  return error.status ? `${error.message} ${hint(action, error.status)}` : `${error.message} Look at the list when it is back.`;
}

/** Count what an action meets: live and dormant sessions, busy kernels, bytes of memory. */
export function tally(sessions) {
  const live = sessions.filter(isLive);
  // Several sessions may have one kernel.
  const kernels = [...new Map(live.map((session) => [session.kernel.id, session])).values()];
  return {
    live: live.length,
    dormant: sessions.length - live.length,
    kernels: kernels.length,
    busy: kernels.filter(isBusy).length,
    memory: kernels.reduce((sum, session) => sum + (session.process?.memory_bytes ?? 0), 0),
  };
}

/** Say in sentences what becomes of so many sessions and kernels. */
export function consequences(action, { live, dormant, kernels, busy, memory }) {
  const runs = count(kernels, "kernel");
  const their = (one, many) => (kernels === 1 ? one : many);
  const stopped = busy && `${count(busy, "kernel runs code", "kernels run code")} at this moment: it is stopped.`;
  const gone =
    dormant && `${count(dormant, "dormant session is", "dormant sessions are")} gone for good: opening the document makes a new one.`;
  const say = {
    delete: [
      live && `${count(live, "live session")} with ${runs}: ${their("it ends", "they end")}, and all variables in ${their("it", "them")} are lost.`,
      stopped,
      gone,
      "No file is deleted.",
    ],
    forget: [
      live &&
        `${runs} ${their("runs", "run")} on without a session, with all variables${memory ? `, and ${their("uses", "use")} ${size(memory)}` : ""}. ` +
          "Attach or end them under “Kernels without a session”.",
      gone,
      "No file is deleted.",
    ],
    restart: [
      live && `${runs} ${their("starts", "start")} again: all variables in ${their("it", "them")} are lost.`,
      stopped,
      "The sessions stay.",
    ],
    interrupt: [stopped || "No kernel was busy when this list was read.", "Variables stay."],
    revive: [
      dormant && `${count(dormant, "new kernel is", "new kernels are")} started. Variables from before do not come back.`,
      live && `${count(live, "session is live, and stays as it is", "sessions are live, and stay as they are")}.`,
    ],
  };
  return say[action].filter(Boolean);
}
