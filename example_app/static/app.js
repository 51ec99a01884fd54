// The page: a country, its airports as a list and on a map, one of them in detail, the database's health.

import { Address } from "./address.js";
import { query, request } from "./api.js";
import { Detail } from "./detail.js";
import { Download } from "./download.js";
import { counted, element, number } from "./element.js";
import { Health } from "./health.js";
import { How } from "./how.js";
import { AirportList } from "./list.js";
import { AirportMap } from "./map.js";
import { Question } from "./question.js";

const at = (id) => document.getElementById(id);
const state = { country: "", names: new Map(), numbers: "", count: "", asked: 0, regions: null };

const address = new Address({ onMove: (values) => moved(values).catch(failed) });
const question = new Question(at("query"), { onAsk: ask });
const map = new AirportMap(at("map"), { onPick: (icao) => pick(icao), onLook: (away) => showNumbers(away) });
const list = new AirportList({
  list: at("airports"),
  more: at("more"),
  scroller: at("scroller"),
  onPick: (icao) => pick(icao),
  onBusy: (busy) => at("listed").classList.toggle("busy", busy),
});
const file = new Download({
  button: at("download"),
  note: at("download-note"),
  asked: () => ({ country: state.country, filters: question.filters, sort: question.sort }),
});
const detail = new Detail({
  dialog: at("detail"),
  template: at("detail-template"),
  under: at("listed"),
  onLeave: leave,
  onClose: (icao) => {
    list.select("");
    map.unselect();
    list.rowOf(icao)?.focus();
  },
  onChange: () => summarize(state.country),
});

// -- a country ---------------------------------------------------------------------------------------------------

async function start() {
  const { items } = await request("/api/countries?limit=500");
  state.names = new Map(items.map((country) => [country.code, country.name]));
  at("country").replaceChildren(
    ...items.map((country) => new Option(`${country.name} (${number.format(country.airports)})`, country.code)),
  );
  const values = address.read();
  const wishes = [values.country, remembered(), new Intl.Locale(navigator.language).region, "IS"];
  const country = wishes.find((code) => state.names.has(code)) ?? items[0]?.code;
  if (!country) {
    at("more").textContent = "There are no airports yet: start the example with python -m example_app.";
    return;
  }
  await enter(country, values);
}

async function enter(country, values = {}) {
  state.country = country;
  detail.close();
  remember(country);
  at("country").value = country;
  document.title = `Airports of ${state.names.get(country)}`;
  list.list.setAttribute("aria-label", `Airports of ${state.names.get(country)}`);
  question.fill(values);
  file.clear();
  const tenant = country;
  list.show(country, question.filters, question.sort);
  summarize(country);
  const [points, users] = await Promise.all([
    request("/api/airports/map", { tenant, panel: "map" }),
    request("/api/users?limit=100", { tenant }),
    showRegions(),
  ]);
  if (state.country !== country) return;
  map.setPoints(points.points);
  detail.setCountry(country, users.items);
  await showMatches();
  if (values.airport) await show(values.airport);
}

// The regions are counted without the chosen one, so that the others can be chosen.
async function showRegions() {
  const path = `/api/airports${query({ ...question.otherFilters, facets: "region", limit: 1 })}`;
  const turn = `${state.country} ${path}`;
  if (state.regions === turn) return;
  state.regions = turn;
  try {
    const { facets } = await request(path, { tenant: state.country, panel: "list" });
    if (state.regions === turn) question.offer(facets.region);
  } catch {
    // The list shows the error, and the next change asks again.
    if (state.regions === turn) state.regions = null;
  }
}

async function summarize(country) {
  const numbers = await request("/api/summary", { tenant: country, panel: "map" }).catch(() => null);
  if (!numbers || state.country !== country) return;
  const open = numbers.open_inspections;
  state.numbers = `${counted(numbers.airports, "airport")} · ${numbers.staff} staff · ${counted(open, "open inspection")}`;
  map.draw();
}

function showNumbers(away) {
  const text = away ? `${state.numbers} · ${number.format(away)} outside this view` : state.numbers;
  if (at("numbers").textContent !== text) at("numbers").textContent = text;
  at("zoom-fit").hidden = !map.view.canFit;
  at("zoom-fit").setAttribute("aria-label", map.view.isWhole ? "Main part of the country" : "Whole country");
}

// -- what is asked of its airports ---------------------------------------------------------------------------------

function ask() {
  list.show(state.country, question.filters, question.sort);
  showMatches();
  showRegions();
  file.clear();
  keep();
}

async function showMatches() {
  const turn = (state.asked += 1);
  const asked = query(question.filters);
  let found = null;
  if (asked) {
    try {
      found = await request(`/api/airports/map${asked}`, { tenant: state.country, panel: "map" });
    } catch (error) {
      if (turn === state.asked) at("count").textContent = error.message;
      return;
    }
  }
  if (turn !== state.asked) return;
  map.setShown(found && new Set(found.points.map(([icao]) => icao)));
  if (detail.icao) map.select(detail.icao, detail.covers(at("map")));
  const count = `${found ? `${number.format(found.points.length)} of ` : ""}${counted(map.points.length, "airport")}`;
  state.count = count;
  at("count").textContent = count;
  at("map").setAttribute("aria-label", `Map of ${count} in ${state.names.get(state.country)}`);
}

// -- one airport ---------------------------------------------------------------------------------------------------

// An airport that is opened is a step, and the next one takes its place: Back closes it.
async function pick(icao) {
  if (!(await show(icao))) return;
  if (address.read().airport) keep();
  else address.go(view(icao), { closes: true });
}

async function show(icao) {
  list.select(icao);
  try {
    if (!(await detail.open(icao))) return false;
  } catch (error) {
    detail.close();
    list.select("");
    at("count").textContent = error.message;
    keep();
    return false;
  }
  at("count").textContent = state.count;
  list.reveal(icao);
  map.select(icao, detail.covers(at("map")));
  return true;
}

function leave() {
  if (address.closes) {
    address.back();
    return;
  }
  detail.close();
  keep();
}

// Back and Forward. What was asked of the same country stays as it is.
async function moved(values) {
  const country = state.names.has(values.country) ? values.country : state.country;
  if (country !== state.country) {
    await enter(country, values);
    return;
  }
  if (values.airport) await show(values.airport);
  else detail.close();
  keep();
}

function view(icao = detail.icao) {
  return { country: state.country, ...question.values, airport: icao };
}

function keep() {
  address.keep(view());
}

// -- keeping the country over visits; a browser may forbid it ------------------------------------------------------

function remember(country) {
  try { localStorage.setItem("country", country); } catch { /* then the next visit begins anew */ }
}

function remembered() {
  try { return localStorage.getItem("country"); } catch { return null; }
}

// -- hands ---------------------------------------------------------------------------------------------------------

function failed(error) {
  const again = element("button", { type: "button", textContent: "Try again", onclick: () => location.reload() });
  at("more").replaceChildren(error.message, " ", again);
}

at("country").addEventListener("change", () => {
  const country = at("country").value;
  address.go({ country });
  enter(country).then(keep, failed);
});
at("zoom-in").addEventListener("click", () => map.closer());
at("zoom-out").addEventListener("click", () => map.farther());
at("zoom-fit").addEventListener("click", () => map.fit());
new ResizeObserver(() => detail.icao && map.select(detail.icao, detail.covers(at("map")))).observe(at("map"));

new How(at("list-how"), "list");
new How(at("map-how"), "map");
new Health({ button: at("health"), text: at("health-text"), message: at("health-message"), facts: at("health-facts") });
start().catch(failed);
