// One airport and its inspections. A change names the version that it was made from; a stale one is refused with 412.

import { query, request } from "./api.js";
import { element, number } from "./element.js";
import { forget, How } from "./how.js";

const TOPICS = { runway: "Runway", lighting: "Lighting", fire_safety: "Fire safety", wildlife: "Wildlife", security: "Security" };
const PANEL = "detail";

const day = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeZone: "UTC" });
const moment = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

export class Detail {
  // `onLeave` is called when the user wants to close it, `onClose` when it is closed. `under` is what it may lie over.
  constructor({ dialog, template, under, onLeave, onClose, onChange }) {
    Object.assign(this, { dialog, template, under, onLeave, onClose, onChange });
    this.tenant = "";
    this.icao = "";
    this.staff = [];
    document.addEventListener("keydown", (event) => this.pressed(event));
    new ResizeObserver(() => this.arrange()).observe(document.body);
  }

  setCountry(tenant, staff) {
    this.tenant = tenant;
    this.staff = staff;
    this.actor = (staff.find((user) => user.role === "lead") ?? staff[0])?.email;
  }

  async open(icao) {
    const tenant = this.tenant;
    this.icao = icao;
    forget(PANEL);
    const [airport, inspections] = await Promise.all([
      request(`/api/airports/${encodeURIComponent(icao)}`, { tenant, panel: PANEL }),
      request(`/api/inspections${query({ airport_icao: icao, limit: 100, sort: "-due_on" })}`, { tenant, panel: PANEL }),
    ]);
    if (this.icao !== icao || this.tenant !== tenant) return false;
    this.dialog.replaceChildren(this.template.content.cloneNode(true));
    new How(this.find(".how"), PANEL);
    this.fill(airport);
    this.list = this.find(".inspections");
    this.list.replaceChildren(...inspections.items.map((each) => this.item(each)));
    this.emptied();
    if (!this.dialog.open) this.dialog.show();
    this.arrange();
    this.dialog.scrollTop = 0;
    this.find("#detail-name").focus({ preventScroll: true });
    return true;
  }

  close() {
    const icao = this.icao;
    this.icao = "";
    if (!this.dialog.open) return;
    this.dialog.close();
    this.arrange();
    this.onClose(icao);
  }

  // How much of an element it covers from the right, in pixels.
  covers(element) {
    if (!this.dialog.open) return 0;
    const [own, other] = [this.dialog.getBoundingClientRect(), element.getBoundingClientRect()];
    const beside = own.left >= other.right || own.right <= other.left || own.top >= other.bottom || own.bottom <= other.top;
    return beside ? 0 : other.right - own.left;
  }

  // What lies under it can't be reached by the keyboard either.
  arrange() {
    this.under.inert = this.covers(this.under) > 0;
  }

  pressed(event) {
    if (event.key !== "Escape" || !this.dialog.open || event.defaultPrevented) return;
    if (document.querySelector(":popover-open") || event.target.matches?.("input[type=search]")) return;
    this.onLeave();
  }

  find(selector) {
    return this.dialog.querySelector(selector);
  }

  fill(airport) {
    this.find(".codes").textContent = [airport.icao, airport.iata].filter(Boolean).join(" · ");
    this.find("#detail-name").textContent = airport.name;
    this.find(".detail .place").textContent = [airport.city, airport.region].filter(Boolean).join(", ");
    this.find(".close").addEventListener("click", () => this.onLeave());
    const facts = {
      Elevation: `${number.format(airport.elevation_ft)} ft (${number.format(Math.round(airport.elevation_ft * 0.3048))} m)`,
      "Time there": timeIn(airport.timezone),
      Latitude: degrees(airport.latitude, "N", "S"),
      Longitude: degrees(airport.longitude, "E", "W"),
    };
    this.find(".facts").replaceChildren(
      ...Object.entries(facts).map(([name, value]) =>
        element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }))),
    );
    this.fillForm();
  }

  fillForm() {
    const form = this.find(".adding form");
    form.topic.replaceChildren(...Object.entries(TOPICS).map(([value, text]) => new Option(text, value)));
    const inspectors = this.staff.filter((user) => user.role !== "analyst");
    form.inspector_id.replaceChildren(...inspectors.map((user) => new Option(user.name, user.id)));
    form.due_on.value = new Date(Date.now() + 14 * 86_400_000).toISOString().slice(0, 10);
    form.addEventListener("submit", (event) => this.added(event));
    const actor = this.find(".acting select");
    actor.replaceChildren(...this.staff.map((user) => new Option(`${user.name}, ${user.role}`, user.email)));
    actor.value = this.actor;
    actor.addEventListener("change", () => (this.actor = actor.value));
  }

  // -- inspections -----------------------------------------------------------------------------------------------

  item(inspection) {
    const open = inspection.status === "open";
    const does = element(
      "div",
      { className: "does" },
      element("button", {
        type: "button",
        className: "turn",
        textContent: open ? "Mark closed" : "Reopen",
        onclick: () => this.change(inspection, { status: open ? "closed" : "open" }),
      }),
      element("button", { type: "button", className: "quiet", textContent: "Delete", onclick: () => this.remove(inspection) }),
    );
    const changed = `Version ${inspection.version}, ${moment.format(new Date(inspection.updated_at))} by ${inspection.updated_by ?? "nobody"}`;
    return element(
      "li",
      { dataset: { id: inspection.id, version: inspection.version } },
      element("span", { className: "topic", textContent: TOPICS[inspection.topic] ?? inspection.topic }),
      element("span", { className: `badge ${inspection.status}`, textContent: inspection.status }),
      element("span", { className: "who", textContent: `Due ${day.format(new Date(inspection.due_on))} · ${inspection.inspector.name}` }),
      element("span", { className: "note", textContent: inspection.note ?? "" }),
      element("span", { className: "who", textContent: changed }),
      does,
    );
  }

  itemOf(id) {
    return this.list.querySelector(`[data-id="${CSS.escape(id)}"]`);
  }

  replace(inspection, { fresh = false } = {}) {
    const item = this.item(inspection);
    item.classList.toggle("fresh", fresh);
    const old = this.itemOf(inspection.id);
    const focused = old?.contains(document.activeElement);
    if (old) old.replaceWith(item);
    if (focused) item.querySelector("button").focus();
  }

  async attempt(work) {
    this.tell("");
    try {
      await work();
      this.onChange();
    } catch (error) {
      this.tell(error.message);
    }
  }

  change(inspection, values) {
    return this.attempt(async () => {
      try {
        this.replace(await this.send(inspection, { method: "PATCH", body: values }));
      } catch (error) {
        await this.stale(error, inspection);
      }
    });
  }

  remove(inspection) {
    return this.attempt(async () => {
      try {
        await this.send(inspection, { method: "DELETE" });
      } catch (error) {
        await this.stale(error, inspection);
        return;
      }
      this.itemOf(inspection.id)?.remove();
      this.emptied();
      this.tell("Deleted.", "Undo", () => this.restore(inspection));
    });
  }

  restore(inspection) {
    return this.attempt(async () => {
      const path = `/api/inspections/${inspection.id}/restore`;
      this.insert(await request(path, { tenant: this.tenant, actor: this.actor, method: "POST", panel: PANEL }));
    });
  }

  async added(event) {
    event.preventDefault();
    const form = event.target;
    await this.attempt(async () => {
      const values = Object.fromEntries(new FormData(form));
      const body = { ...values, note: values.note || null, airport_icao: this.icao };
      this.insert(await request("/api/inspections", { tenant: this.tenant, actor: this.actor, method: "POST", body, panel: PANEL }));
      form.note.value = "";
      this.find(".adding").open = false;
    });
  }

  insert(inspection) {
    this.list.querySelector(".none")?.remove();
    const item = this.item(inspection);
    this.list.prepend(item);
    item.querySelector("button").focus();
  }

  send(inspection, options) {
    const { tenant, actor } = this;
    return request(`/api/inspections/${inspection.id}`, { tenant, actor, version: inspection.version, panel: PANEL, ...options });
  }

  // Somebody was quicker: nothing was written, so show what there is now and let the user decide again.
  async stale(error, inspection) {
    if (error.status !== 412 && error.status !== 404) throw error;
    try {
      const current = await request(`/api/inspections/${inspection.id}`, { tenant: this.tenant });
      this.replace(current, { fresh: true });
      this.tell(`Not saved: ${current.updated_by ?? "somebody"} has changed this inspection meanwhile. It is shown as it is now.`);
    } catch (missing) {
      if (missing.status !== 404) throw missing;
      this.itemOf(inspection.id)?.remove();
      this.emptied();
      this.tell("Not saved: somebody has deleted this inspection meanwhile.");
    }
  }

  emptied() {
    if (!this.list.children.length) this.list.append(element("li", { className: "none", textContent: "None yet." }));
  }

  tell(text, action, work) {
    const message = this.find(".message");
    message.replaceChildren(text);
    if (action) message.append(element("button", { type: "button", textContent: action, onclick: work }));
    if (text) message.scrollIntoView({ block: "nearest" });
  }
}

function degrees(value, positive, negative) {
  return `${Math.abs(value).toFixed(4)}° ${value < 0 ? negative : positive}`;
}

function timeIn(timeZone) {
  try {
    return new Intl.DateTimeFormat("en-GB", { timeStyle: "short", timeZone }).format(new Date());
  } catch {
    return timeZone;
  }
}
