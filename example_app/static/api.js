// The API, as the page asks it. Every request names its tenant: the country.

import { record } from "./how.js";

export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail || body?.title || "The server did not answer.");
    this.status = status;
    this.code = body?.code ?? "";
  }
}

// `panel` is the part of the page that shows this request under "How is this done?".
export async function request(path, { tenant, actor, version, method = "GET", body, signal, panel } = {}) {
  const headers = {};
  if (tenant) headers["X-Tenant-ID"] = tenant;
  if (actor) headers["X-User"] = actor;
  if (version !== undefined) headers["If-Match"] = `"${version}"`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, null);
  }
  if (panel) record(panel, { method, path, headers, status: response.status, statements: response.headers.get("X-Statements") });
  const found = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) throw new Problem(response.status, found);
  return found;
}

export function query(values) {
  const kept = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return kept.length ? `?${new URLSearchParams(kept)}` : "";
}
