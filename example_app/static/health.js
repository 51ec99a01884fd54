// The database's health: its state in the bar, and the details behind it.

import { element, number } from "./element.js";

const EVERY = 20_000;
const FACTS = {
  latency_ms: ["Round trip", (value) => `${value.toFixed(2)} ms`],
  "server.version": ["Server", (value, details) => `${details.journal_mode ? "SQLite" : "PostgreSQL"} ${value}`],
  "storage.size_bytes": ["Size", megabytes],
  "storage.disk_free_bytes": ["Free on disk", megabytes],
  journal_mode: ["Journal", String],
  integrity: ["Integrity", String],
  "connections.used": ["Connections", (value, details) => `${value} of ${details.connections.allowed}`],
  "pool.checked_out": ["Pool in use", (value, details) => `${value} of ${details.pool.size}`],
};

export class Health {
  constructor({ button, text, message, facts }) {
    Object.assign(this, { button, text, message, facts });
    document.addEventListener("visibilitychange", () => this.show());
    setInterval(() => this.show(), EVERY);
    this.show();
  }

  async show() {
    if (document.hidden) return;
    const found = await check();
    this.button.dataset.status = found.status;
    this.text.textContent = found.status;
    this.message.textContent = found.message;
    const rows = Object.entries(FACTS).flatMap(([path, [name, told]]) => {
      const value = path.split(".").reduce((held, key) => held?.[key], found.details);
      return value === undefined || value === null
        ? []
        : [element("dt", { textContent: name }), element("dd", { textContent: told(value, found.details) })];
    });
    this.facts.replaceChildren(...rows);
  }
}

// A 503 has the same body as a 200.
async function check() {
  try {
    const response = await fetch("/health/db", { headers: { Accept: "application/json" } });
    return await response.json();
  } catch {
    return { status: "unhealthy", message: "The server does not answer.", details: {} };
  }
}

function megabytes(bytes) {
  return bytes > 1e9 ? `${number.format(Math.round(bytes / 1e9))} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
