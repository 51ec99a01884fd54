// "How is this done?": the requests of a panel, and the SQL that the toolkit sent for them, without parameters.

import { element } from "./element.js";

const KEPT = 4;
const requests = new Map();
const panels = new Map();

export function record(panel, entry) {
  requests.set(panel, [entry, ...(requests.get(panel) ?? [])].slice(0, KEPT));
  panels.get(panel)?.changed();
}

// The requests of an airport that is shown no more explain nothing.
export function forget(panel) {
  requests.delete(panel);
}

export class How {
  constructor(details, panel) {
    this.details = details;
    this.panel = panel;
    this.turn = 0;
    panels.set(panel, this);
    details.className = "how";
    this.body = element("div", { className: "how-body" });
    details.replaceChildren(element("summary", { textContent: "How is this done?" }), this.body);
    details.addEventListener("toggle", () => this.changed());
  }

  async changed() {
    if (!this.details.open) return;
    const turn = (this.turn += 1);
    const parts = await Promise.all((requests.get(this.panel) ?? []).map(shown));
    if (turn === this.turn) this.body.replaceChildren(...(parts.length ? parts : ["Nothing was asked yet."]));
  }
}

async function shown(entry) {
  entry.sql ??= await statements(entry.statements);
  const named = Object.entries(entry.headers).map(([name, value]) => `${name}: ${value}`);
  return element(
    "section",
    {},
    element("pre", { className: "request", tabIndex: 0, textContent: [`${entry.method} ${decoded(entry.path)}`, ...named, `→ ${entry.status}`].join("\n") }),
    ...entry.sql.map((each) => element("pre", { className: "sql", tabIndex: 0, textContent: broken(each) })),
  );
}

async function statements(token) {
  if (!token) return [];
  try {
    const response = await fetch(`/api/statements/${encodeURIComponent(token)}`);
    return response.ok ? (await response.json()).statements : ["The server has forgotten these statements."];
  } catch {
    return ["The server did not answer."];
  }
}

function decoded(path) {
  return decodeURIComponent(path.replaceAll("+", " "));
}

// Each clause begins on a line of its own.
function broken(sql) {
  const clauses = /\s+(?=(?:FROM|WHERE|GROUP BY|ORDER BY|LIMIT|RETURNING|VALUES|SET|LEFT OUTER JOIN|INNER JOIN|JOIN)\b)/g;
  return sql.trim().replace(/[ \t]*\n[ \t]*/g, " ").replace(clauses, "\n");
}
