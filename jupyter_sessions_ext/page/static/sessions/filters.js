// The filters: a form, kept in the page's address so that it survives a reload and can be sent on.

import { h } from "./dom.js";

const FIELDS = ["q", "state", "type", "kernel_name", "idle_longer_than"];
const TYPING = 250;
const form = document.getElementById("filters");
const clear = document.getElementById("clear");
const options = { type: new Map(), kernel_name: new Map() };

export const DEFAULT_SORT = "-last_activity";

/** Read filters and sort from the page's address; what makes no sense there is left out. */
export function fromAddress(sorts) {
  const given = new URLSearchParams(location.search);
  for (const name of FIELDS) {
    const value = given.get(name) ?? "";
    if (options[name] && value) offer(name, value, value);
    form.elements[name].value = value;
    if (form.elements[name].value !== value) form.elements[name].value = "";
  }
  const sort = given.get("sort");
  showClear();
  return sorts.includes(sort) ? sort : DEFAULT_SORT;
}

/** Write filters and sort to the page's address, without the token that it may have come with. */
export function toAddress(sort) {
  const query = new URLSearchParams(filter());
  if (sort !== DEFAULT_SORT) query.set("sort", sort);
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
}

/** Return the filters that are set, as the API takes them in a body. */
export function filter() {
  const set = FIELDS.map((name) => [name, form.elements[name].value.trim()]).filter(
    ([, value]) => value,
  );
  const values = Object.fromEntries(set);
  if (values.idle_longer_than) values.idle_longer_than = Number(values.idle_longer_than);
  return values;
}

/** Call when another filter is chosen; while a text is typed, when typing pauses. */
export function onFilter(changed) {
  let typing = 0;
  const now = () => {
    clearTimeout(typing);
    showClear();
    changed();
  };
  form.elements.q.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(now, TYPING);
  });
  form.addEventListener("change", (event) => event.target.name !== "sort" && now());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    now();
  });
  form.addEventListener("reset", () => setTimeout(now));
}

/** Take all filters away. */
export function reset() {
  form.reset();
  form.elements.q.focus();
}

/** Offer a type or a kernel to choose from. */
export function offer(name, value, label) {
  const known = options[name];
  if (!value || known.get(value)?.text === label) return;
  if (known.has(value)) known.get(value).text = label;
  else {
    const option = h("option", { value }, label);
    known.set(value, option);
    form.elements[name].append(option);
  }
}

function showClear() {
  clear.hidden = !Object.keys(filter()).length;
}
