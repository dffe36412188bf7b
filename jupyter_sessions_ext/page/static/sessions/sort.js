// By what the list is sorted: by clicks on the columns' heads, or, where there is no room for
// those, with a choice. Both say the same.

import { h } from "./dom.js";

const SORTS = {
  "-last_activity": "Last activity, latest first",
  last_activity: "Last activity, oldest first",
  path: "Path",
  "-path": "Path, downwards",
  "-created_at": "Created, latest first",
  created_at: "Created, oldest first",
  "-cpu": "CPU, most first",
  cpu: "CPU, least first",
  "-memory": "Memory, most first",
  memory: "Memory, least first",
};
const select = document.getElementById("sort");

export class Sort {
  static names = Object.keys(SORTS);
  value = "";

  constructor(changed) {
    this.changed = changed;
    select.append(...Object.entries(SORTS).map(([value, label]) => h("option", { value }, label)));
    select.addEventListener("change", () => this.#change(select.value));
  }

  set(value) {
    this.value = select.value = value;
  }

  /** Sort by a column, or, if the list is sorted by it, the other way. */
  toggle({ sort, first = "" }) {
    const other = this.value.startsWith("-") ? sort : `-${sort}`;
    this.#change(this.value.replace("-", "") === sort ? other : first + sort);
  }

  #change(value) {
    this.set(value);
    this.changed();
  }
}
