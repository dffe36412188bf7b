// A table whose rows are kept by key: a re-read changes only what differs.

import { h, put } from "./dom.js";

/**
 * Columns are `{name, label, show(item), sort?, numeric?, head?, update?(cell, item)}`. A column's
 * `sort` is what the API calls it; `first` is the direction of the first click, "-" for downwards.
 */
export class Table {
  #rows = new Map();
  #body;

  constructor(table, columns, { onSort = null } = {}) {
    this.columns = columns;
    this.items = [];
    this.#body = table.tBodies[0];
    table.tHead.replaceChildren(
      h(
        "tr",
        { role: "row" },
        columns.map((column) => this.#head(column, onSort)),
      ),
    );
    this.heads = table.tHead.rows[0].cells;
  }

  #head(column, onSort) {
    const sortable = column.sort && onSort;
    const label = h("span", { class: column.quiet ? "unseen" : null }, column.label);
    return h(
      "th",
      {
        role: "columnheader",
        scope: "col",
        class: this.#classes(column),
        "aria-sort": sortable ? "none" : null,
      },
      column.head ??
        (sortable ? h("button", { type: "button", onclick: () => onSort(column) }, label) : label),
    );
  }

  #classes({ name, numeric }) {
    return `c-${name}${numeric ? " numeric" : ""}`;
  }

  /** Show by which column, and which way, the list is sorted. */
  showSort(sort) {
    this.columns.forEach((column, at) => {
      if (!column.sort) return;
      const sorted = sort.replace("-", "") === column.sort;
      const way = sort.startsWith("-") ? "descending" : "ascending";
      this.heads[at].setAttribute("aria-sort", sorted ? way : "none");
    });
  }

  /** Show these items in this order; `selected` tells which of them are. */
  show(items, selected = () => false) {
    this.items = items;
    const focused = document.activeElement;
    const gone = new Set(this.#rows.keys());
    items.forEach((item, at) => {
      gone.delete(item.id);
      const row = this.#rows.get(item.id) ?? this.#add(item);
      row.classList.toggle("selected", selected(item));
      this.columns.forEach((column, n) => {
        if (column.update) column.update(row.cells[n], item);
        else put(row.cells[n], column.show(item));
      });
      if (this.#body.rows[at] !== row) this.#body.insertBefore(row, this.#body.rows[at] ?? null);
    });
    for (const id of gone) {
      this.#rows.get(id).remove();
      this.#rows.delete(id);
    }
    // A row that is moved loses the focus.
    if (focused !== document.activeElement && this.#body.contains(focused))
      focused.focus({ preventScroll: true });
  }

  #add(item) {
    const cells = this.columns.map((column) =>
      h("td", {
        role: "cell",
        class: this.#classes(column),
        "data-label": column.quiet ? null : column.label,
      }),
    );
    const row = h("tr", { role: "row", "data-id": item.id }, cells);
    this.#rows.set(item.id, row);
    return row;
  }

  /** Return the item whose row an event came from. */
  itemOf(event) {
    const id = event.target.closest("tr")?.dataset.id;
    return this.items.find((item) => item.id === id);
  }
}
