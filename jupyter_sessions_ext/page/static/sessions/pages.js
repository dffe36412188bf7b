// Pages of the list: the API gives the cursor of the next one, those before are remembered.

const nav = document.getElementById("pages");
const [previous, label, next] = nav.children;

export class Pages {
  #cursors = [null];
  #next = null;

  constructor(turned) {
    next.addEventListener("click", () => {
      this.#cursors.push(this.#next);
      turned();
    });
    previous.addEventListener("click", () => this.back() && turned());
  }

  /** The cursor of this page; null for the first one. */
  get cursor() {
    return this.#cursors.at(-1);
  }

  /** The number of this page, from 0. */
  get number() {
    return this.#cursors.length - 1;
  }

  /** Go to the page before; tell whether there is one. */
  back() {
    if (!this.number) return false;
    this.#cursors.pop();
    return true;
  }

  first() {
    this.#cursors = [null];
  }

  show({ next: cursor, total }, size) {
    this.#next = cursor;
    nav.hidden = !cursor && !this.number;
    previous.disabled = !this.number;
    next.disabled = !cursor;
    label.textContent = `Page ${this.number + 1} of ${Math.max(1, Math.ceil(total / size))}`;
  }
}
