// The API, as the page asks it. Every request names its tenant: the country.

export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail || body?.title || "The server did not answer.");
    this.status = status;
    this.code = body?.code ?? "";
  }
}

export async function request(path, { tenant, actor, version, method = "GET", body, signal } = {}) {
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
  const found = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) throw new Problem(response.status, found);
  return found;
}

export function query(values) {
  const kept = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return kept.length ? `?${new URLSearchParams(kept)}` : "";
}

// The health check answers 503 with the same body as 200.
export async function health() {
  try {
    const response = await fetch("/health/db");
    return await response.json();
  } catch {
    return { status: "unhealthy", message: "The server does not answer.", details: {} };
  }
}

export function element(tag, properties = {}, ...children) {
  const { dataset, ...plain } = properties;
  const made = Object.assign(document.createElement(tag), plain);
  Object.assign(made.dataset, dataset ?? {});
  made.append(...children);
  return made;
}

export const number = new Intl.NumberFormat("en");
