// Which sessions are selected: some by id, or all that the filter lets through.

export class Selection {
  #items = new Map();
  #all = false;

  get all() {
    return this.#all;
  }

  get items() {
    return [...this.#items.values()];
  }

  has(item) {
    return this.#all || this.#items.has(item.id);
  }

  /** Count them; `total` is how many the filter lets through. */
  count(total) {
    return this.#all ? total : this.#items.size;
  }

  /** Select some more of those that are shown, or fewer. */
  choose(items, on, shown) {
    if (this.#all && !on) this.#items = new Map(shown.map((item) => [item.id, item]));
    if (!on) this.#all = false;
    for (const item of items) on ? this.#items.set(item.id, item) : this.#items.delete(item.id);
  }

  chooseAll() {
    this.#all = true;
    this.#items.clear();
  }

  /** Take over what a re-read says of those that are selected. */
  refresh(items) {
    for (const item of items) if (this.#items.has(item.id)) this.#items.set(item.id, item);
  }

  drop(id) {
    return this.#items.delete(id);
  }

  /** Leave only these ids selected, of those that were or that are shown. */
  keep(ids, shown) {
    const left = [...shown, ...this.items].filter(({ id }) => ids.includes(id));
    this.#all = false;
    this.#items = new Map(left.map((item) => [item.id, item]));
  }

  clear() {
    this.#all = false;
    this.#items.clear();
  }

  /** Return what the API is told to act on. */
  target(filter) {
    if (!this.#all) return { ids: [...this.#items.keys()] };
    return Object.keys(filter).length ? { filter } : { all: true };
  }
}
