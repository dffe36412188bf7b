// What the actions are called, what is lost by them, and what can be done where they are refused.

import { count, size } from "./format.js";

export const ACTIONS = {
  revive: {
    verb: "Revive",
    doing: "Reviving",
    done: "revived",
    event: "revived",
    needs: "dormant",
  },
  interrupt: { verb: "Interrupt", doing: "Interrupting", done: "interrupted", needs: "live" },
  restart: {
    verb: "Restart",
    doing: "Restarting",
    done: "restarted",
    needs: "live",
    danger: true,
    asks: true,
  },
  forget: { verb: "Forget", doing: "Forgetting", done: "forgotten", event: "deleted", asks: true },
  delete: {
    verb: "Delete",
    doing: "Deleting",
    done: "deleted",
    event: "deleted",
    danger: true,
    asks: true,
  },
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
  return error.status
    ? `${error.message} ${hint(action, error.status)}`
    : `${error.message} Look at the list when it is back.`;
}

/** Count what an action meets: sessions of these ids, and the kernels that they have. */
export function tally(ids, kernels) {
  const meant = new Set(ids);
  const theirs = kernels.filter(({ sessions }) => sessions.some((id) => meant.has(id)));
  const live = theirs.flatMap(({ sessions }) => sessions);
  return {
    live: live.filter((id) => meant.has(id)).length,
    dormant: meant.size - live.filter((id) => meant.has(id)).length,
    others: live.filter((id) => !meant.has(id)).length,
    kernels: theirs.length,
    busy: theirs.filter((kernel) => kernel.execution_state === "busy").length,
    memory: theirs.reduce((sum, { process }) => sum + (process?.memory_bytes ?? 0), 0),
  };
}

/** Say in sentences what becomes of so many; what is lost for good is `lost`. */
export function consequences(action, { live, dormant, others, kernels, busy, memory }) {
  const theKernels = count(kernels, "kernel");
  const liveSessions = count(live, "live session");
  const [ends, runs, starts, them, these] =
    kernels === 1
      ? ["ends", "runs", "starts", "it", "this kernel"]
      : ["end", "run", "start", "them", "these kernels"];
  const stopped = busy && {
    text: `${count(busy, "kernel runs", "kernels run")} code at this moment: it is stopped.`,
    lost: true,
  };
  const gone = dormant && {
    text:
      `${count(dormant, "dormant session is", "dormant sessions are")} gone for good: ` +
      "opening the document makes a new one.",
  };
  const sharing = (what) =>
    others && {
      text: `${count(others, "other session")} of ${these} ${what}.`,
    };
  const noFile = { text: "No file is deleted." };
  const say = {
    delete: () => [
      live && {
        text: `${theKernels} of ${liveSessions} ${ends}, with all variables in ${them}.`,
        lost: true,
      },
      stopped,
      sharing(others === 1 ? "turns dormant" : "turn dormant"),
      gone,
      noFile,
    ],
    forget: () => [
      live && {
        text:
          `${theKernels} ${runs} on, with all variables, and ${size(memory)} of memory: ` +
          "look for what has no session under “Kernels without a session”.",
      },
      gone,
      noFile,
    ],
    restart: () => [
      live && {
        text: `${theKernels} ${starts} again, without the variables in ${them}.`,
        lost: true,
      },
      stopped,
      sharing(others === 1 ? "loses them, too" : "lose them, too"),
      { text: "The sessions stay." },
    ],
    interrupt: () => [
      stopped || { text: "No kernel runs code at this moment." },
      { text: "Variables stay." },
    ],
    revive: () => [
      dormant && {
        text:
          `${count(dormant, "new kernel is", "new kernels are")} started. ` +
          "Variables from before do not come back.",
      },
      live && {
        text: `${count(live, "live session stays as it is", "live sessions stay as they are")}.`,
      },
    ],
  };
  return say[action]().filter(Boolean);
}
