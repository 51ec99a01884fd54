// The page: a country, its airports as a list and on a map, one of them in detail, the database's health.

import { element, health, number, query, request } from "./api.js";
import { Detail } from "./detail.js";
import { AirportList } from "./list.js";
import { AirportMap } from "./map.js";

const at = (id) => document.getElementById(id);
const fields = { words: at("words"), region: at("region"), sort: at("sort"), above: at("above"), iata: at("iata"), open: at("open") };
const state = { country: "", names: new Map(), asked: 0 };

const map = new AirportMap(at("map"), { onPick: (icao) => pick(icao) });
const list = new AirportList({
  list: at("airports"),
  more: at("more"),
  scroller: at("scroller"),
  onPick: (icao) => pick(icao),
  onBusy: (busy) => document.querySelector(".listed").classList.toggle("busy", busy),
});
const detail = new Detail({
  dialog: at("detail"),
  template: at("detail-template"),
  onClose: (icao) => {
    map.cover(0);
    mark("");
    list.rowOf(icao)?.focus();
  },
  onChange: () => showNumbers(state.country),
});

// -- a country ---------------------------------------------------------------------------------------------------

async function start() {
  const { items } = await request("/api/countries?limit=500");
  state.names = new Map(items.map((country) => [country.code, country.name]));
  at("country").replaceChildren(
    ...items.map((country) => new Option(`${country.name} (${number.format(country.airports)})`, country.code)),
  );
  const asked = new URLSearchParams(location.search);
  const wishes = [asked.get("country"), remembered(), new Intl.Locale(navigator.language).region, "IS"];
  const country = wishes.find((code) => state.names.has(code)) ?? items[0]?.code;
  if (!country) {
    at("more").textContent = "There are no airports yet: start the example with python -m example_app.";
    return;
  }
  at("country").value = country;
  for (const [name, field] of Object.entries(fields)) {
    if (field.type === "checkbox") field.checked = asked.has(name);
    else if (name !== "region" && asked.has(name)) field.value = asked.get(name);
  }
  await enter(country, { region: asked.get("region") ?? "", icao: asked.get("airport") });
}

async function enter(country, { region = "", icao = "" } = {}) {
  state.country = country;
  detail.close();
  remember(country);
  document.title = `Airports of ${state.names.get(country)}`;
  list.list.setAttribute("aria-label", `Airports of ${state.names.get(country)}`);
  fields.region.replaceChildren(new Option("All", ""));
  const tenant = country;
  const regions = request("/api/airports/regions", { tenant });
  if (region) await fill(country, await regions, region);
  list.show(country, filters(), fields.sort.value);
  showNumbers(country);
  const [points, users] = await Promise.all([
    request("/api/airports/map", { tenant }),
    request("/api/users?limit=100", { tenant }),
    region || regions.then((found) => fill(country, found, "")),
  ]);
  if (state.country !== country) return;
  map.setPoints(points.points);
  detail.setCountry(country, users.items);
  await showMatches();
  if (icao) await pick(icao);
}

function fill(country, regions, chosen) {
  if (state.country !== country) return;
  fields.region.append(...regions.map((region) => new Option(region, region)));
  fields.region.value = regions.includes(chosen) ? chosen : "";
}

function counted(size, noun) {
  return `${number.format(size)} ${noun}${size === 1 ? "" : "s"}`;
}

async function showNumbers(country) {
  const numbers = await request("/api/summary", { tenant: country }).catch(() => null);
  if (!numbers || state.country !== country) return;
  const open = numbers.open_inspections;
  at("numbers").textContent =
    `${counted(numbers.airports, "airport")} · ${numbers.staff} staff · ${counted(open, "open inspection")}`;
}

// -- what is asked of its airports ---------------------------------------------------------------------------------

// As the server folds names when it loads them: small letters, no accents. Words may have anything between them.
function folded(text) {
  const plain = text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  return plain.replace(/[%_\\]/g, " ").trim().split(/\s+/).filter(Boolean);
}

function filters() {
  const words = folded(fields.words.value);
  return {
    keywords__like: words.length ? `%${words.join("%")}%` : "",
    region: fields.region.value,
    elevation_ft__gte: fields.above.validity.valid ? fields.above.value : "",
    iata__is_null: fields.iata.checked ? "false" : "",
    "inspections.status": fields.open.checked ? "open" : "",
  };
}

function ask() {
  list.show(state.country, filters(), fields.sort.value);
  showMatches();
  keepAddress();
}

async function showMatches() {
  const turn = (state.asked += 1);
  const asked = query(filters());
  const all = map.points.length;
  let found = null;
  if (asked) {
    try {
      found = await request(`/api/airports/map${asked}`, { tenant: state.country });
    } catch (error) {
      if (turn === state.asked) at("count").textContent = error.message;
      return;
    }
  }
  if (turn !== state.asked) return;
  map.setShown(found && new Set(found.points.map(([icao]) => icao)));
  const count = `${found ? `${number.format(found.points.length)} of ` : ""}${counted(all, "airport")}`;
  at("count").textContent = count;
  at("map").setAttribute("aria-label", `Map of ${count} in ${state.names.get(state.country)}`);
}

// -- one airport ---------------------------------------------------------------------------------------------------

async function pick(icao) {
  mark(icao);
  try {
    await detail.open(icao);
    map.cover(detail.width);
    map.select(icao);
  } catch (error) {
    mark("");
    at("count").textContent = error.message;
  }
}

function mark(icao) {
  list.select(icao);
  list.reveal(icao);
  map.select(icao);
  keepAddress(icao);
}

function keepAddress(icao = detail.icao) {
  const { words, region, sort, above, iata, open } = fields;
  const kept = query({
    country: state.country,
    words: words.value.trim(),
    region: region.value,
    sort: sort.value === "name" ? "" : sort.value,
    above: above.value,
    iata: iata.checked ? "1" : "",
    open: open.checked ? "1" : "",
    airport: icao,
  });
  history.replaceState(null, "", kept);
}

// -- the database --------------------------------------------------------------------------------------------------

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

function megabytes(bytes) {
  return bytes > 1e9 ? `${number.format(Math.round(bytes / 1e9))} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

async function showHealth() {
  if (document.hidden) return;
  const found = await health();
  at("health").dataset.status = found.status;
  at("health-text").textContent = found.status;
  at("health-message").textContent = found.message;
  const rows = Object.entries(FACTS).flatMap(([path, [name, told]]) => {
    const value = path.split(".").reduce((held, key) => held?.[key], found.details);
    return value === undefined || value === null
      ? []
      : [element("dt", { textContent: name }), element("dd", { textContent: told(value, found.details) })];
  });
  at("health-facts").replaceChildren(...rows);
}

// -- keeping the country over visits; a browser may forbid it ------------------------------------------------------

function remember(country) {
  try { localStorage.setItem("country", country); } catch { /* then the next visit begins anew */ }
}

function remembered() {
  try { return localStorage.getItem("country"); } catch { return null; }
}

// -- hands ---------------------------------------------------------------------------------------------------------

function afterwards(work, milliseconds) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
}

function failed(error) {
  const again = element("button", { type: "button", textContent: "Try again", onclick: () => location.reload() });
  at("more").replaceChildren(error.message, " ", again);
}

const soon = afterwards(ask, 180);
fields.words.addEventListener("input", soon);
fields.above.addEventListener("input", soon);
for (const name of ["region", "sort", "iata", "open"]) fields[name].addEventListener("change", ask);
at("query").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
at("country").addEventListener("change", () => {
  enter(at("country").value).then(() => keepAddress(), failed);
});
at("zoom-in").addEventListener("click", () => map.closer());
at("zoom-out").addEventListener("click", () => map.farther());
at("zoom-fit").addEventListener("click", () => map.fit());

showHealth();
setInterval(showHealth, 20_000);
document.addEventListener("visibilitychange", showHealth);
start().catch(failed);
