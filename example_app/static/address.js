// The page's address: the country, what is asked of its airports, and the airport that is open. Back closes the airport.

import { query } from "./api.js";

export class Address {
  constructor({ onMove }) {
    addEventListener("popstate", () => onMove(this.read()));
  }

  read() {
    return Object.fromEntries(new URLSearchParams(location.search));
  }

  // The same view, told more exactly.
  keep(values) {
    history.replaceState(history.state, "", query(values) || location.pathname);
  }

  // A new view, from which Back leads to the one before.
  go(values, { closes = false } = {}) {
    history.pushState({ closes }, "", query(values));
  }

  // Whether Back, and nothing else, closes what is open.
  get closes() {
    return Boolean(history.state?.closes);
  }

  back() {
    history.back();
  }
}
