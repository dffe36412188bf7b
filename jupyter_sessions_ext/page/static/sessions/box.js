// The box that asks, and shows what came of it: one native modal dialog, which traps the focus and
// gives it back.

import { button, h, icon } from "./dom.js";

const dialog = document.getElementById("box");
let locked = false;
let closed = null;

dialog.addEventListener("cancel", (event) => locked && event.preventDefault());
dialog.addEventListener("close", () => {
  closed?.();
  closed = null;
  backToList();
});

/** Put the focus on the list where what had it before is gone. */
export function backToList() {
  if (document.activeElement === document.body)
    document.getElementById("list").focus({ preventScroll: true });
}

/**
 * Open the box, or change what it shows. `lock`: it stays until what it shows is done; `onclose`
 * runs when it is closed while it shows this, `onsubmit` when its form is complete.
 */
export function showBox({
  heading,
  content,
  buttons,
  lock = false,
  onclose = null,
  onsubmit = null,
}) {
  locked = lock;
  closed = onclose;
  dialog.replaceChildren(
    h(
      "form",
      {
        method: "dialog",
        onsubmit: (event) => {
          event.preventDefault();
          onsubmit?.();
        },
      },
      h("h2", { id: "box-heading", tabindex: -1 }, heading),
      h("div", { class: "box-content" }, content),
      h("div", { class: "box-buttons" }, buttons),
    ),
  );
  if (!dialog.open) dialog.showModal();
  else (dialog.querySelector(".box-buttons button") ?? dialog.querySelector("h2")).focus();
}

/** The field of a box that asks for a document's path. */
export function pathField() {
  return h("input", {
    name: "path",
    required: true,
    autofocus: true,
    autocomplete: "off",
    spellcheck: "false",
  });
}

export function closeBox() {
  locked = false;
  dialog.close();
}

/** Say that something was not done, and why. */
export function showFailure(heading, text) {
  showBox({
    heading,
    content: h("p", { class: "problem" }, icon("warning"), h("span", {}, text)),
    buttons: [button("Close", { class: "primary", autofocus: true, onclick: closeBox })],
  });
}

/** List what becomes of sessions and kernels: `{text, lost}`. */
export function lossList(said) {
  const line = ({ text, lost }) =>
    h("li", {}, icon(lost ? "warning" : "done"), h("span", {}, text));
  return h("ul", { class: "losses" }, said.map(line));
}
