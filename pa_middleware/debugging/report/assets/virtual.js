// A list of which only the rows in view exist, however long it is.

class VirtualList {
  /** `row(place)` makes the element of a row; all rows are `height` pixels high. */
  constructor(label, height, row) {
    this.height = height;
    this.row = row;
    this.count = 0;
    this.inner = make("div", { class: "rows", role: "presentation" });
    this.box = make("div", { class: "list", role: "listbox", "aria-label": label, tabindex: "0" }, this.inner);
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  /** Shows so many rows, drawn anew. */
  show(count, current = null) {
    this.count = count;
    this.current = current;
    this.inner.style.setProperty("height", `${count * this.height}px`);
    this.draw();
  }

  draw() {
    const from = Math.max(0, Math.floor(this.box.scrollTop / this.height) - 6);
    const to = Math.min(this.count, Math.ceil((this.box.scrollTop + this.box.clientHeight) / this.height) + 6);
    const rows = [];
    for (let place = from; place < to; place++) {
      const row = this.row(place);
      row.id = `${this.box.getAttribute("aria-label").toLowerCase()}-${place}`;
      row.setAttribute("role", "option");
      row.setAttribute("aria-setsize", this.count);
      row.setAttribute("aria-posinset", place + 1);
      row.setAttribute("aria-selected", place === this.current);
      row.style.setProperty("transform", `translateY(${place * this.height}px)`);
      rows.push(row);
    }
    this.inner.replaceChildren(...rows);
    const active = rows.find((row) => row.getAttribute("aria-selected") === "true");
    if (active) this.box.setAttribute("aria-activedescendant", active.id);
    else this.box.removeAttribute("aria-activedescendant");
  }

  /** Scrolls as little as needed to have a row in view. */
  reveal(place) {
    const top = place * this.height;
    const { scrollTop, clientHeight } = this.box;
    if (top < scrollTop) this.box.scrollTop = Math.max(0, top - this.height);
    else if (top + 2 * this.height > scrollTop + clientHeight)
      this.box.scrollTop = top + 2 * this.height - clientHeight;
    this.draw();
  }
}
