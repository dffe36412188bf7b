// Elements from texts alone: nothing that comes from the server is ever read as HTML.

import { ago, exact } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: attributes (`on...`: a listener; true: present; null or false: absent). */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function set(element, name, value) {
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (value !== null && value !== false && value !== undefined)
    element.setAttribute(name, value === true ? "" : value);
}

/** Make an icon of the page's sprite; it is decoration, the text beside it says the same. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Make a button with an icon and a text. */
export function button(label, { icon: name = null, ...attributes } = {}) {
  return h("button", { type: "button", ...attributes }, name && icon(name), h("span", {}, label));
}

/** Make a button that is only an icon, with its label for those who do not see it. */
export function iconButton(label, name, attributes = {}) {
  return h(
    "button",
    { type: "button", class: "icon-button", "aria-label": label, title: label, ...attributes },
    icon(name),
  );
}

/** Set children if they differ from those there: what stays the same keeps the focus. */
export function put(element, ...children) {
  const fresh = h("div", {}, ...children);
  if (fresh.innerHTML === element.innerHTML) return;
  const hadFocus = element.contains(document.activeElement);
  element.replaceChildren(...fresh.childNodes);
  if (hadFocus) element.querySelector("button, a, input")?.focus({ preventScroll: true });
}

/** Make a time in relative words; its title is the exact one. */
export function timeElement(iso, now) {
  return h("time", { datetime: iso, title: exact(iso) }, ago(iso, now));
}

/** Have the browser save a file. */
export function saveFile(name, file) {
  const href = URL.createObjectURL(file);
  h("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000); // it is read after this
}
