// The list as a file: all matching rows as CSV, in the list's order. A link can't send a header, so this is a fetch.

import { download, query } from "./api.js";
import { element } from "./element.js";

const amount = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export class Download {
  // `asked` gives what the list shows: a country, its filters and its order.
  constructor({ button, note, asked }) {
    Object.assign(this, { button, note, asked });
    this.label = button.textContent;
    button.addEventListener("click", () => (this.running ? this.running.abort() : this.start()));
  }

  async start() {
    const running = (this.running = new AbortController());
    const { country, filters, sort } = this.asked();
    this.button.textContent = "Cancel";
    this.say("Downloading …");
    try {
      const blob = await download(`/api/airports${query({ ...filters, sort })}`, {
        tenant: country,
        accept: "text/csv",
        panel: "list",
        signal: running.signal,
        onProgress: (size) => this.say(`Downloading … ${sized(size)}`),
      });
      const name = `airports-${country}.csv`;
      save(blob, name);
      this.say(`${name}, ${sized(blob.size)}`);
    } catch (error) {
      this.say(error.name === "AbortError" ? "The download was cancelled." : error.message);
    } finally {
      this.running = null;
      this.button.textContent = this.label;
    }
  }

  // What was said of another list is no longer true. A download that runs goes on.
  clear() {
    if (!this.running) this.say("");
  }

  say(text) {
    this.note.textContent = text;
  }
}

function save(blob, name) {
  const href = URL.createObjectURL(blob);
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

function sized(bytes) {
  return bytes < 1e6 ? `${amount.format(bytes / 1e3)} kB` : `${amount.format(bytes / 1e6)} MB`;
}
