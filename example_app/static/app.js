// The page: one country at a time, its airports by cursor pages. No framework, nothing to build.

const $ = (id) => document.getElementById(id);
const names = new Intl.DisplayNames(["en"], { type: "region" });
const number = new Intl.NumberFormat("en");
const state = { country: "", cursor: null, request: 0, loading: false, done: false, dots: [], staff: [], chosen: null };

async function api(path, options = {}) {
  const headers = { "X-Tenant-ID": state.country, ...(options.body ? { "Content-Type": "application/json" } : {}), ...options.headers };
  const response = await fetch(path, { ...options, headers });
  const body = response.status === 204 ? null : await response.json();
  if (!response.ok) {
    const error = new Error(body?.detail ?? response.statusText);
    error.status = response.status;
    throw error;
  }
  return { body, response };
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// -- the list ------------------------------------------------------------------------------------------------

function restart() {
  state.request += 1;
  Object.assign(state, { cursor: null, done: false, loading: false });
  $("airports").replaceChildren();
  $("more").textContent = "";
  return next();
}

function filters() {
  const query = new URLSearchParams();
  const wanted = $("filter").value.trim();
  if (wanted) query.set("name__ilike", wanted);
  return query;
}

async function next() {
  if (state.loading || state.done) return;
  state.loading = true;
  const request = state.request;
  const query = filters();
  query.set("limit", "40");
  query.set("sort", $("sort").value);
  if (state.cursor) query.set("cursor", state.cursor);
  $("more").textContent = "Loading…";
  try {
    const { body } = await api(`/api/airports?${query}`);
    if (request !== state.request) return;
    $("airports").append(...body.items.map(row));
    state.cursor = body.next_cursor;
    state.done = !body.has_next;
    const shown = $("airports").children.length;
    $("count").textContent = state.done ? `${number.format(shown)} airports` : `${number.format(shown)} airports, and more`;
    $("more").textContent = state.done ? (shown ? "That is all of them." : "No airport has that name.") : "";
  } catch (error) {
    $("more").textContent = error.message;
    state.done = true;
  } finally {
    if (request === state.request) state.loading = false;
  }
  if (request === state.request && !state.done && nearEnd()) next();
}

const nearEnd = () => $("more").getBoundingClientRect().top < innerHeight + 600;

function row(airport) {
  const button = element("button", { type: "button" },
    element("span", { className: "code", textContent: airport.icao }),
    element("span", { className: "name", textContent: airport.name }),
    element("span", { className: "height", textContent: `${number.format(airport.elevation)} ft` }),
    element("span", { className: "place", textContent: [airport.city, airport.subdivision].filter(Boolean).join(", ") }));
  button.addEventListener("click", () => open(airport));
  button.addEventListener("mouseenter", () => draw(airport.icao));
  button.addEventListener("focus", () => draw(airport.icao));
  return element("li", {}, button);
}

// -- the map -------------------------------------------------------------------------------------------------

async function loadMap() {
  const request = state.request;
  const { body } = await api("/api/map");
  if (request !== state.request) return;
  state.dots = body;
  draw(null);
}

// A country across the date line is drawn in one piece: its longitudes are counted from the widest gap on.
function unrolled(longitudes) {
  const sorted = [...longitudes].sort((a, b) => a - b);
  let start = sorted[0];
  let widest = 360 - (sorted.at(-1) - sorted[0]);
  for (let i = 1; i < sorted.length; i += 1) {
    if (sorted[i] - sorted[i - 1] > widest) [widest, start] = [sorted[i] - sorted[i - 1], sorted[i]];
  }
  return (longitude) => (longitude < start ? longitude + 360 : longitude);
}

function draw(highlighted) {
  const canvas = $("map");
  const scale = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  Object.assign(canvas, { width: width * scale, height: height * scale });
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  if (!state.dots.length) return;
  const turn = unrolled(state.dots.map((dot) => dot[2]));
  const xs = state.dots.map((dot) => turn(dot[2]));
  const ys = state.dots.map((dot) => dot[1]);
  const [west, east, south, north] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const shrink = Math.max(Math.cos(((south + north) / 2) * Math.PI / 180), 0.15);
  const zoom = Math.min((width - 40) / Math.max((east - west) * shrink, 0.5), (height - 40) / Math.max(north - south, 0.5));
  const place = (x, y) => [
    width / 2 + (x - (west + east) / 2) * shrink * zoom,
    height / 2 - (y - (south + north) / 2) * zoom,
  ];
  const style = getComputedStyle(document.documentElement);
  const radius = state.dots.length > 2000 ? 1.1 : state.dots.length > 300 ? 1.8 : 3;
  context.fillStyle = style.getPropertyValue("--dot");
  context.globalAlpha = state.dots.length > 300 ? 0.6 : 0.85;
  state.dots.forEach((dot, i) => {
    const [x, y] = place(xs[i], ys[i]);
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.fill();
  });
  const at = state.dots.findIndex((dot) => dot[0] === highlighted);
  if (at >= 0) {
    const [x, y] = place(xs[at], ys[at]);
    context.globalAlpha = 1;
    context.fillStyle = style.getPropertyValue("--chosen");
    context.beginPath();
    context.arc(x, y, radius + 4, 0, 7);
    context.fill();
  }
}

// -- one airport ---------------------------------------------------------------------------------------------

async function open(airport) {
  state.chosen = airport;
  draw(airport.icao);
  $("detail-title").textContent = airport.name;
  $("detail-facts").textContent = [
    airport.icao, airport.iata, airport.city, `${number.format(airport.elevation)} ft`,
    `${airport.latitude.toFixed(3)}, ${airport.longitude.toFixed(3)}`, airport.timezone,
  ].filter(Boolean).join(" · ");
  $("problem").textContent = "";
  $("inspections").replaceChildren();
  $("inspector").replaceChildren(...state.staff.map((user) => element("option", { value: user.id, textContent: user.name })));
  $("detail").showModal();
  await inspections();
}

async function inspections() {
  const { body } = await api(`/api/inspections?per_page=50&airport_icao=${encodeURIComponent(state.chosen.icao)}`);
  const rows = body.items.map(inspection);
  $("inspections").replaceChildren(...(rows.length ? rows : [element("li", { textContent: "None so far." })]));
}

function inspection(item) {
  const by = state.staff.find((user) => user.id === item.inspector_id)?.name ?? "someone";
  const acts = element("div", { className: "acts" });
  if (item.outcome === "open") {
    for (const outcome of ["passed", "failed"]) {
      acts.append(action(outcome === "passed" ? "Passed" : "Failed", () => change(item, { outcome })));
    }
  }
  acts.append(action("Remove", () => remove(item)));
  const when = new Date(item.created_at).toLocaleDateString("en", { dateStyle: "medium" });
  const outcome = element("span", { className: "outcome", textContent: item.outcome });
  outcome.dataset.outcome = item.outcome;
  return element("li", {}, outcome, element("span", { textContent: item.notes }),
    element("span", { className: "place", textContent: `${by}, ${when}` }), acts);
}

function action(textContent, run) {
  const button = element("button", { type: "button", textContent });
  button.addEventListener("click", run);
  return button;
}

async function attempt(work) {
  $("problem").textContent = "";
  try {
    await work();
  } catch (error) {
    $("problem").textContent = error.status === 412
      ? "Somebody else has changed this inspection meanwhile; here is how it stands now."
      : error.message;
  }
  await Promise.all([inspections(), overview()]);
}

const ifMatch = (item) => ({ "If-Match": `"${item.version}"` });
const change = (item, values) => attempt(() =>
  api(`/api/inspections/${item.id}`, { method: "PATCH", headers: ifMatch(item), body: JSON.stringify(values) }));
const remove = (item) => attempt(() => api(`/api/inspections/${item.id}`, { method: "DELETE", headers: ifMatch(item) }));

$("add").addEventListener("submit", (event) => {
  event.preventDefault();
  const body = { airport_icao: state.chosen.icao, inspector_id: $("inspector").value, notes: $("notes").value };
  attempt(async () => {
    await api("/api/inspections", { method: "POST", body: JSON.stringify(body) });
    $("notes").value = "";
  });
});

// -- the country and the database ---------------------------------------------------------------------------------

async function overview() {
  const { body } = await api("/api/overview");
  const numbers = [["Airports", body.airports], ["Inspections", body.inspections.total_entities], ["Open", body.open]];
  $("numbers").replaceChildren(...numbers.map(([name, value]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: number.format(value) }))));
}

async function enter(country) {
  state.country = country;
  state.dots = [];
  state.staff = [];
  localStorage.setItem("country", country);
  document.title = `${names.of(country)} · Airport inspections`;
  draw(null);
  const first = restart();
  const staff = api("/api/users").then(({ body }) => { state.staff = body.items; });
  await Promise.all([first, staff, loadMap(), overview()]);
}

async function health() {
  const box = $("health");
  try {
    const response = await fetch("/health/db");
    const body = await response.json();
    box.dataset.status = body.status;
    const latency = body.details?.latency_ms;
    box.lastElementChild.textContent = `Database ${body.status}${latency === undefined ? "" : `, ${latency.toFixed(1)} ms`}`;
  } catch {
    box.dataset.status = "unhealthy";
    box.lastElementChild.textContent = "The server does not answer";
  }
}

let typing;
$("filter").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(restart, 200); });
$("sort").addEventListener("change", restart);
$("query").addEventListener("submit", (event) => event.preventDefault());
$("country").addEventListener("change", (event) => enter(event.target.value));
addEventListener("scroll", () => { if (nearEnd()) next(); }, { passive: true });
addEventListener("resize", () => draw(null));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(null));

const { body: countries } = await api("/api/countries");
const named = countries.map(({ code, airports }) => ({ code, airports, name: names.of(code) ?? code }))
  .sort((a, b) => a.name.localeCompare(b.name, "en"));
$("country").append(...named.map(({ code, airports, name }) =>
  element("option", { value: code, textContent: `${name} (${number.format(airports)})` })));
const known = new Set(countries.map((country) => country.code));
const before = localStorage.getItem("country");
$("country").value = known.has(before) ? before : "IS";
health();
setInterval(health, 10_000);
await enter($("country").value);
