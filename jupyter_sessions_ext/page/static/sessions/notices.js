// What the page says by itself: banners that stay while something is wrong, toasts that pass.

import { button, h, icon, iconButton, put } from "./dom.js";

const SHOWN = 6000;
const banners = document.getElementById("banners");
const toasts = document.getElementById("toasts");

/** Show, or change, the banner of this name; without a text it is taken away. */
export function banner(name, text, { kind = "error", act = null } = {}) {
  let element = banners.querySelector(`[data-name="${name}"]`);
  if (!text) return element?.remove();
  if (!element) {
    element = h(
      "div",
      { class: "banner", "data-name": name, "data-kind": kind },
      icon("warning"),
      h("p"),
    );
    if (act) element.append(button(act.label, { onclick: act.run }));
    banners.append(element);
  }
  return put(element.querySelector("p"), text);
}

/** Say something that has been done, for a while. */
export function toast(text) {
  const element = h("div", { class: "toast" }, icon("done"), h("span", {}, text));
  const close = () => element.remove();
  element.append(iconButton("Dismiss", "close", { onclick: close }));
  toasts.append(element);
  setTimeout(close, SHOWN);
}
