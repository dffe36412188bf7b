// What the drawer tells of a session, as terms and their descriptions.

import { h } from "./dom.js";
import { count, percent, size } from "./format.js";
import { activity, kernelName, since, stateOf } from "./session.js";

/** Return the list of what is known of a session. */
export function details(session) {
  const rows = [
    ["State", [stateOf(session), h("span", { class: "detail" }, " since "), since(session.since)]],
    ["Path", h("span", { class: "value" }, session.path ?? "")],
    ["Name", session.name],
    ["Type", session.type],
    [
      "Kernel",
      [kernelName(session.kernel_name), session.kernel && h("code", {}, session.kernel.id)],
    ],
    ["Process", session.process && process(session.process)],
    [
      "Clients",
      session.kernel &&
        (session.connections ? `${session.connections} connected` : "none connected"),
    ],
    ["Last activity", activity(session)],
    ["Created", [since(session.created_at), ` by ${session.created_by}`]],
    ["Kept", session.adoptions && `Its kernel has outlived ${count(session.adoptions, "server")}`],
    ["Id", h("code", {}, session.id)],
  ];
  return h(
    "dl",
    { class: "details" },
    rows
      .filter(([, value]) => value)
      .map(([term, value]) =>
        h("div", {}, h("dt", {}, term), h("dd", {}, ...[value].flat(2).filter(Boolean))),
      ),
  );
}

function process({ pid, cpu_percent: cpu, memory_bytes: memory }) {
  return `${pid}: ${percent(cpu)} of one CPU, ${size(memory)} of memory, child processes included`;
}
