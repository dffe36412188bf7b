// Renaming a session: its path and its name, unless it was changed meanwhile.

import { changeSession, readSession } from "./api.js";
import { closeBox, pathField, showBox } from "./box.js";
import { button, h, icon, put } from "./dom.js";
import { toast } from "./notices.js";
import { explain } from "./words.js";

const STALE =
  "It was changed meanwhile by someone else. This is how it is now; change it again if you want.";

/** Ask for the new path and name; `renamed` is called when it has them. */
export async function rename(id, renamed) {
  const path = pathField();
  const name = h("input", { name: "name", autocomplete: "off", spellcheck: "false" });
  const problem = h("p", { class: "problem", role: "alert" });
  let item;
  let etag;
  const load = async () => {
    ({ item, etag } = await readSession(id));
    path.value = item.path ?? "";
    name.value = item.name ?? "";
  };
  const save = async () => {
    const change = {};
    if (path.value !== item.path) change.path = path.value;
    if (name.value !== (item.name ?? "")) change.name = name.value;
    try {
      await changeSession(id, change, etag);
    } catch (error) {
      put(problem, icon("warning"), error.status === 412 ? STALE : explain(error, "rename"));
      if (error.status === 412) await load();
      return;
    }
    closeBox();
    toast(`${path.value}: renamed`);
    renamed();
  };
  try {
    await load();
  } catch (error) {
    put(problem, icon("warning"), explain(error, "rename"));
  }
  showBox({
    heading: "Rename this session",
    content: [
      h(
        "p",
        { class: "hint" },
        "This renames the session, not its document: for a file that was moved outside of Jupyter.",
      ),
      h(
        "label",
        { class: "field" },
        h("span", {}, "Path of the document, below the root folder"),
        path,
      ),
      h("label", { class: "field" }, h("span", {}, "Name"), name),
      problem,
    ],
    buttons: [
      button("Cancel", { onclick: closeBox }),
      button("Rename", { type: "submit", class: "primary" }),
    ],
    onsubmit: save,
  });
  path.select();
}
