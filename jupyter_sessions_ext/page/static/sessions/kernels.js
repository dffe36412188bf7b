// Kernels without a session: attach them to a document, or end them.

import { attachKernel, shutDownKernel } from "./api.js";
import { closeBox, lossList, pathField, showBox, showFailure } from "./box.js";
import { button, h } from "./dom.js";
import { size } from "./format.js";
import { toast } from "./notices.js";
import { activity, clients, cpu, kernelName, memory, since } from "./session.js";
import { Table } from "./table.js";
import { explain } from "./words.js";

const section = document.getElementById("kernels");

/** Show the kernels that no session has; `changed` is called when one of them is acted on. */
export class Kernels {
  #table;
  #changed;

  constructor(changed) {
    this.#changed = changed;
    const table = section.querySelector("table");
    this.#table = new Table(table, [
      { name: "path", label: "Kernel", show: titleOf },
      { name: "state", label: "State", show: (kernel) => kernel.execution_state ?? "" },
      { name: "activity", label: "Last activity", show: activity },
      { name: "created", label: "Started", show: (kernel) => since(kernel.started_at) },
      { name: "cpu", label: "CPU", numeric: true, show: cpu },
      { name: "memory", label: "Memory", numeric: true, show: memory },
      { name: "clients", label: "Clients", numeric: true, show: clients },
      { name: "act", label: "Actions", quiet: true, show: buttons },
    ]);
    table.addEventListener("click", (event) => {
      const act = event.target.closest("[data-act]")?.dataset.act;
      if (act) (act === "attach" ? this.#attach : this.#end).call(this, this.#table.itemOf(event));
    });
  }

  show(kernels) {
    const alone = kernels.filter(({ sessions }) => !sessions.length);
    section.hidden = !alone.length;
    this.#table.show(alone);
  }

  #attach(kernel) {
    const path = pathField();
    const type = h(
      "select",
      { name: "type" },
      ["notebook", "console", "file"].map((value) => h("option", {}, value)),
    );
    const attach = () => attachKernel(kernel.id, { path: path.value, type: type.value });
    showBox({
      heading: "Attach this kernel to a document",
      content: [
        h("p", {}, `The session of that path gets ${labelOf(kernel)}, with its variables.`),
        h(
          "label",
          { class: "field" },
          h("span", {}, "Path of the document, below the root folder"),
          path,
        ),
        h("label", { class: "field" }, h("span", {}, "Type"), type),
      ],
      buttons: [
        button("Cancel", { onclick: closeBox }),
        button("Attach", { type: "submit", class: "primary" }),
      ],
      onsubmit: () => this.#do(attach, `${path.value}: attached`),
    });
  }

  #end(kernel) {
    const busy = kernel.execution_state === "busy";
    const used = kernel.process?.memory_bytes;
    showBox({
      heading: "Shut down this kernel?",
      content: lossList([
        { text: "The kernel ends, with all variables in it.", lost: true },
        ...(busy ? [{ text: "It runs code at this moment: it is stopped.", lost: true }] : []),
        ...(used ? [{ text: `${size(used)} of memory are freed.` }] : []),
      ]),
      buttons: [
        button("Cancel", { autofocus: true, onclick: closeBox }),
        button("Shut down", {
          class: "danger",
          onclick: () => this.#do(() => shutDownKernel(kernel.id), "The kernel is shut down"),
        }),
      ],
    });
  }

  async #do(request, said) {
    try {
      await request();
      closeBox();
      toast(said);
    } catch (error) {
      showFailure("Not done", explain(error, "attach"));
    }
    this.#changed();
  }
}

const labelOf = ({ name, id }) => `${kernelName(name)} ${id.slice(0, 8)}`;

function titleOf(kernel) {
  return h(
    "span",
    { class: "path" },
    h("span", { class: "name" }, kernelName(kernel.name)),
    h("code", {}, kernel.id.slice(0, 8)),
  );
}

function buttons(kernel) {
  const which = labelOf(kernel);
  return [
    button("Attach…", {
      icon: "attach",
      class: "quiet",
      "data-act": "attach",
      "aria-label": `Attach… ${which}`,
    }),
    button("Shut down…", {
      icon: "delete",
      class: "quiet warning",
      "data-act": "end",
      "aria-label": `Shut down… ${which}`,
    }),
  ];
}
