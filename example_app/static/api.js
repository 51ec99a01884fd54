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
export async function request(path, { panel, ...options } = {}) {
  const { response, entry } = await send(path, options);
  if (panel) record(panel, entry);
  if (!response.ok) throw await problemOf(response);
  return response.status === 204 ? null : response.json().catch(() => null);
}

// The whole body as a Blob, or an error: never a part of it. `onProgress` gets the number of bytes that have arrived.
export async function download(path, { panel, onProgress, ...options }) {
  const { response, entry } = await send(path, options);
  try {
    if (!response.ok) throw await problemOf(response);
    const chunks = [];
    let size = 0;
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) return new Blob(chunks, { type: options.accept });
      chunks.push(value);
      onProgress((size += value.length));
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Problem) throw error;
    throw new Problem(0, { detail: "The download broke off. Nothing was saved." });
  } finally {
    // At the end, when all of its statements were sent.
    record(panel, entry);
  }
}

async function send(path, { tenant, actor, version, accept, method = "GET", body, signal }) {
  const headers = {};
  if (tenant) headers["X-Tenant-ID"] = tenant;
  if (actor) headers["X-User"] = actor;
  if (accept) headers.Accept = accept;
  if (version !== undefined) headers["If-Match"] = `"${version}"`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, null);
  }
  const { status } = response;
  return { response, entry: { method, path, headers, status, statements: response.headers.get("X-Statements") } };
}

async function problemOf(response) {
  return new Problem(response.status, await response.json().catch(() => null));
}

export function query(values) {
  const kept = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return kept.length ? `?${new URLSearchParams(kept)}` : "";
}
