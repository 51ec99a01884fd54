// The list: cursor pages, the next one fetched before the last row comes into view.

import { query, request } from "./api.js";
import { element, number } from "./element.js";

const PAGE = 50;

export class AirportList {
  constructor({ list, more, scroller, onPick, onBusy }) {
    Object.assign(this, { list, more, scroller, onPick, onBusy });
    this.asked = { tenant: "", filters: {}, sort: "name" };
    this.cursor = null;
    this.ended = true;
    this.selected = "";
    this.list.addEventListener("click", (event) => this.clicked(event));
    this.list.addEventListener("keydown", (event) => this.moved(event));
    this.observer = new IntersectionObserver((seen) => seen.at(-1).isIntersecting && this.next(), {
      root: this.scroller,
      rootMargin: "800px 0px",
    });
    this.observer.observe(this.more);
  }

  show(tenant, filters, sort) {
    this.running?.abort();
    this.running = null;
    this.asked = { tenant, filters, sort };
    this.cursor = null;
    this.ended = false;
    this.first = true;
    return this.next();
  }

  async next() {
    if (this.running || this.ended) return;
    const running = (this.running = new AbortController());
    const { tenant, filters, sort } = this.asked;
    this.onBusy(true);
    try {
      const path = `/api/airports${query({ ...filters, sort, limit: PAGE, cursor: this.cursor })}`;
      const page = await request(path, { tenant, signal: running.signal, panel: "list" });
      if (running.signal.aborted) return;
      this.running = null;
      this.add(page);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.running = null;
      this.failed(error);
    } finally {
      if (this.running === null) this.onBusy(false);
    }
  }

  add(page) {
    const rows = page.items.map((airport) => this.row(airport));
    if (this.first) {
      this.list.replaceChildren(...rows);
      this.scroller.scrollTop = 0;
      this.first = false;
      rows[0]?.firstChild.setAttribute("tabindex", "0");
    } else {
      this.list.append(...rows);
    }
    this.cursor = page.next_cursor;
    this.ended = !page.has_next;
    this.more.textContent = !this.list.children.length
      ? "No airport matches."
      : this.ended ? `That is all: ${number.format(this.list.children.length)}.` : "Loading more …";
    // A short page may leave the end in view, which an observer tells only once.
    this.observer.unobserve(this.more);
    this.observer.observe(this.more);
  }

  failed(error) {
    const again = element("button", { type: "button", textContent: "Try again", onclick: () => this.next() });
    this.more.replaceChildren(error.message, " ", again);
    if (this.first) this.list.replaceChildren();
  }

  row(airport) {
    const code = airport.iata ?? airport.icao;
    const place = [airport.city, airport.region].filter((part, at, all) => part && all.indexOf(part) === at).join(", ");
    const button = element(
      "button",
      { type: "button", className: "row", tabIndex: -1, dataset: { icao: airport.icao } },
      element("span", { className: "code", textContent: code }),
      element(
        "span",
        {},
        element("span", { className: "name", textContent: airport.name }),
        element("span", { className: "place", textContent: place }),
      ),
      element("span", { className: "height", textContent: `${number.format(airport.elevation_ft)} ft` }),
    );
    if (airport.icao === this.selected) button.setAttribute("aria-current", "true");
    return element("li", {}, button);
  }

  select(icao) {
    this.selected = icao;
    this.list.querySelector('[aria-current="true"]')?.removeAttribute("aria-current");
    this.rowOf(icao)?.setAttribute("aria-current", "true");
  }

  rowOf(icao) {
    return icao ? this.list.querySelector(`[data-icao="${CSS.escape(icao)}"]`) : null;
  }

  reveal(icao) {
    this.rowOf(icao)?.scrollIntoView({ block: "nearest" });
  }

  clicked(event) {
    const row = event.target.closest(".row");
    if (row) {
      this.focus(row);
      this.onPick(row.dataset.icao);
    }
  }

  // One stop for the Tab key, the arrows within it.
  moved(event) {
    const item = event.target.closest("li");
    const steps = { ArrowDown: item?.nextSibling, ArrowUp: item?.previousSibling, Home: this.list.firstChild, End: this.list.lastChild };
    if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const goal = steps[event.key];
    if (goal) this.focus(goal.firstChild);
    if (event.key === "End" || (event.key === "ArrowDown" && !goal)) this.next();
  }

  focus(row) {
    this.list.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    row.setAttribute("tabindex", "0");
    row.focus();
    row.scrollIntoView({ block: "nearest" });
  }
}
