// Acting on sessions: ask first what would be lost, then do it, and show what became of each.

import { act, readKernels } from "./api.js";
import { closeBox, lossList, showBox, showFailure } from "./box.js";
import { button, h } from "./dom.js";
import { count } from "./format.js";
import { toast } from "./notices.js";
import { ACTIONS, consequences, explain, hint, tally } from "./words.js";

const SHOWN = 100;
let pending = null;

/** Count a session's event towards the action that is under way. */
export function countEvent({ session_id: id, action }) {
  if (!pending || action !== pending.event || !pending.ids.delete(id)) return;
  pending.bar.value = pending.bar.max - pending.ids.size;
}

/**
 * Ask whether to act, then act. `target` is what the API is told. Resolves to the ids that failed,
 * or to null if nothing was done.
 */
export async function ask(action, target) {
  let plan;
  try {
    const [{ results }, kernels] = await Promise.all([act(action, target, true), readKernels()]);
    const refused = results.filter(({ status }) => status >= 400);
    const meant = results.filter(({ status }) => status < 400);
    const ids = meant.map(({ id }) => id);
    plan = { meant, refused, said: consequences(action, tally(ids, kernels.items)) };
  } catch (error) {
    return fail(action, error);
  }
  return (await confirmed(action, plan)) ? run(action, target, plan.meant) : null;
}

/** Act on one session at once, as nothing can be lost by it. */
export async function actNow(action, session) {
  try {
    const { results } = await act(action, { ids: [session.id] });
    if (results[0].status >= 400) return await finish(action, { results });
    toast(`${results[0].path}: ${ACTIONS[action].done}`);
    return [];
  } catch (error) {
    return fail(action, error);
  }
}

function confirmed(action, { meant, refused, said }) {
  const { verb, danger } = ACTIONS[action];
  const what = count(meant.length, "session");
  return new Promise((resolve) => {
    showBox({
      heading: meant.length ? `${verb} ${what}?` : `${verb}: nothing can be done`,
      content: [
        meant.length ? lossList(said) : null,
        pathList(meant),
        refused.length
          ? h(
              "div",
              { class: "refused" },
              h("h3", {}, `${count(refused.length, "session is", "sessions are")} left alone`),
              failures(action, refused),
            )
          : null,
      ],
      buttons: [
        button("Cancel", { autofocus: true, onclick: closeBox }),
        meant.length
          ? button(`${verb} ${what}`, {
              class: danger ? "danger" : "primary",
              onclick: () => resolve(true),
            })
          : null,
      ],
      onclose: () => resolve(false),
    });
  });
}

async function run(action, target, meant) {
  const { doing, event } = ACTIONS[action];
  const ids = new Set(meant.map(({ id }) => id));
  const bar = h("progress", {
    max: ids.size,
    "aria-label": `${doing} ${count(ids.size, "session")}`,
  });
  pending = { event, ids, bar };
  showBox({
    heading: `${doing} ${count(ids.size, "session")}…`,
    content: [bar, h("p", { class: "hint" }, "Kernels are given time to end or to start.")],
    buttons: [],
    lock: true,
  });
  try {
    return await finish(action, await act(action, target));
  } catch (error) {
    return fail(action, error);
  } finally {
    pending = null;
  }
}

/** Show what became of each session; nothing is asked where the only one went well. */
async function finish(action, { results }) {
  const { done } = ACTIONS[action];
  const failed = results.filter(({ status }) => status >= 400);
  const fine = results.filter(({ status }) => status < 400);
  if (!failed.length && fine.length === 1) {
    closeBox();
    toast(`${fine[0].path ?? fine[0].id}: ${done}`);
    return [];
  }
  showBox({
    heading: failed.length
      ? `${fine.length.toLocaleString("en")} of ${count(results.length, "session")} ${done}`
      : `${count(fine.length, "session")} ${done}`,
    content: [
      failed.length
        ? h(
            "div",
            { class: "refused" },
            h("h3", {}, `${failed.length} failed`),
            failures(action, failed),
          )
        : null,
      fine.length
        ? h(
            "details",
            { open: !failed.length },
            h("summary", {}, `${fine.length} ${done}`),
            pathList(fine),
          )
        : null,
    ],
    buttons: [button("Close", { class: "primary", onclick: closeBox })],
  });
  return failed.map(({ id }) => id);
}

function fail(action, error) {
  showFailure(`${ACTIONS[action].verb}: not done`, explain(error, action));
  return null;
}

function pathList(results) {
  const rest = results.length - SHOWN;
  return h(
    "ul",
    { class: "paths", tabindex: 0, "aria-label": "Sessions" },
    results.slice(0, SHOWN).map(({ id, path }) => h("li", {}, path ?? id)),
    rest > 0 ? h("li", { class: "hint" }, `and ${count(rest, "more", "more")}`) : null,
  );
}

function failures(action, results) {
  return h(
    "ul",
    { class: "failures" },
    results
      .slice(0, SHOWN)
      .map(({ id, path, status, message }) =>
        h(
          "li",
          {},
          h("b", {}, path ?? id),
          h("span", {}, message || `Status ${status}`),
          h("span", { class: "hint" }, hint(action, status)),
        ),
      ),
  );
}
