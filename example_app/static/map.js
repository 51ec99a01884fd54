// The map: the country's airports as dots, among coasts and borders.

import { Coast } from "./coast.js";
import { graticule } from "./graticule.js";
import { View } from "./view.js";

export class AirportMap {
  constructor(canvas, { onPick, onLook }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.onPick = onPick;
    this.onLook = onLook;
    this.view = new View();
    this.coast = new Coast();
    this.points = [];
    this.byCode = new Map();
    this.shown = null;
    this.selected = "";
    this.before = null;
    this.hovered = null;
    this.pointers = new Map();
    new ResizeObserver(() => this.resized()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("pointerdown", (event) => this.pressed(event));
    canvas.addEventListener("pointermove", (event) => this.dragged(event));
    canvas.addEventListener("pointerup", (event) => this.released(event));
    canvas.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
    // Without the coast the dots are a map, too.
    this.coast.load().then(() => this.draw(), () => {});
  }

  // -- what is shown ---------------------------------------------------------------------------------------------

  setPoints(points) {
    const places = this.view.enter(points.map(([, latitude, longitude]) => [latitude, longitude]));
    this.points = places.map((place, at) => ({ icao: points[at][0], ...place }));
    this.byCode = new Map(this.points.map((point) => [point.icao, point]));
    this.shown = null;
    this.before = null;
    this.draw();
  }

  // The airports that match, which come into view; null: all of them do.
  setShown(codes) {
    this.shown = codes;
    const hits = this.points.filter((point) => codes?.has(point.icao));
    const held = hits.filter((point) => this.view.holds(point)).length;
    const lost = this.view.moved ? held === 0 : held < hits.length;
    if (hits.length && lost) this.view.frame(hits);
    else if (codes === null && !this.view.moved) this.view.goHome();
    if (this.selected) this.before = this.view.save();
    this.draw();
  }

  // Mark an airport, in the part of the map over whose right edge nothing lies, `covered` pixels wide.
  select(icao, covered = 0) {
    const point = this.byCode.get(icao);
    if (point) {
      this.before ??= this.view.save();
      this.view.uncover(point, covered);
    }
    this.selected = icao;
    this.draw();
  }

  // Show what was shown before an airport was marked, unless the user has moved the map meanwhile.
  unselect() {
    if (this.before?.hands === this.view.hands) this.view.restore(this.before);
    this.before = null;
    this.selected = "";
    this.draw();
  }

  // -- the view --------------------------------------------------------------------------------------------------

  closer() { this.zoom(1.6); }
  farther() { this.zoom(1 / 1.6); }

  zoom(factor, at) {
    this.view.zoomTo(this.view.zoom * factor, at);
    this.draw();
  }

  // The whole country; if it is shown already, its main part.
  fit() {
    if (this.view.isWhole) this.view.goHome();
    else this.view.goWhole();
    this.draw();
  }

  resized() {
    const ratio = devicePixelRatio || 1;
    this.view.width = this.canvas.clientWidth;
    this.view.height = this.canvas.clientHeight;
    this.canvas.width = Math.round(this.view.width * ratio);
    this.canvas.height = Math.round(this.view.height * ratio);
    this.draw(true);
  }

  // -- drawing ---------------------------------------------------------------------------------------------------

  draw(now = false) {
    if (now) {
      this.paint();
    } else if (!this.waiting) {
      this.waiting = requestAnimationFrame(() => {
        this.waiting = null;
        this.paint();
      });
    }
  }

  paint() {
    if (!this.view.ready) return;
    const { context, view } = this;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const ratio = devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, view.width, view.height);
    this.lands(ratio, colour);
    graticule(context, view, { line: colour("grid"), text: colour("quiet") });
    const crowd = Math.sqrt((view.width * view.height) / Math.max(1, this.points.length));
    const radius = Math.min(5, Math.max(1.3, (crowd / 11) * Math.sqrt(view.zoom)));
    const lit = (point) => this.shown === null || this.shown.has(point.icao);
    this.dots(this.points.filter((point) => !lit(point)), Math.max(1, radius * 0.7), colour("faint-dot"), 1);
    this.dots(this.points.filter(lit), radius, colour("accent"), this.points.length > 3000 ? 0.65 : 0.85);
    for (const point of [this.hovered, this.byCode.get(this.selected)]) {
      if (point) this.marked(point, radius, colour);
    }
    this.onLook?.(this.points.filter((point) => lit(point) && !view.holds(point)).length);
  }

  // The globe goes round: each copy of it that is in view.
  lands(ratio, colour) {
    const { context, view } = this;
    const paths = this.coast.paths(view.flat);
    if (!paths) return;
    const [x0] = view.unplaced([0, 0]);
    const [x1] = view.unplaced([view.width, 0]);
    const scale = view.scale;
    for (const turn of [-2, -1, 0, 1, 2]) {
      const shift = (360 * turn - view.west) * view.flat;
      if (shift + 360 * view.flat < x0 || shift - 360 * view.flat > x1) continue;
      const left = (shift - view.middle[0]) * scale + view.width / 2;
      const top = -view.middle[1] * scale + view.height / 2;
      context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * left, ratio * top);
      context.lineJoin = "round";
      context.fillStyle = colour("land");
      context.fill(paths.land);
      context.lineWidth = 1 / scale;
      context.strokeStyle = colour("shore");
      context.stroke(paths.shore);
      context.setLineDash([4 / scale, 3 / scale]);
      context.stroke(paths.borders);
      context.setLineDash([]);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  dots(points, radius, colour, opacity) {
    const { context } = this;
    context.beginPath();
    for (const point of points) {
      const [left, top] = this.view.placed(point);
      if (left < -radius || top < -radius || left > this.view.width + radius || top > this.view.height + radius) continue;
      context.moveTo(left + radius, top);
      context.arc(left, top, radius, 0, 2 * Math.PI);
    }
    context.globalAlpha = opacity;
    context.fillStyle = colour;
    context.fill();
    context.globalAlpha = 1;
  }

  marked(point, radius, colour) {
    const { context } = this;
    const [left, top] = this.view.placed(point);
    context.beginPath();
    context.arc(left, top, radius + 5, 0, 2 * Math.PI);
    context.lineWidth = 2.5;
    context.strokeStyle = colour("ink");
    context.stroke();
    context.font = `600 13px ${colour("mono")}`;
    const wide = context.measureText(point.icao).width;
    const start = left + radius + 12 + wide > this.view.width ? left - radius - 12 - wide : left + radius + 12;
    context.lineWidth = 4;
    context.lineJoin = "round";
    context.strokeStyle = colour("sea");
    context.strokeText(point.icao, start, top + 4);
    context.fillStyle = colour("ink");
    context.fillText(point.icao, start, top + 4);
  }

  // -- hands -----------------------------------------------------------------------------------------------------

  spot(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  nearest(spot, reach) {
    let best = null;
    let least = reach * reach;
    for (const point of this.points) {
      if (this.shown !== null && !this.shown.has(point.icao)) continue;
      const [left, top] = this.view.placed(point);
      const far = (left - spot[0]) ** 2 + (top - spot[1]) ** 2;
      if (far < least) [best, least] = [point, far];
    }
    return best;
  }

  pressed(event) {
    this.pointers.set(event.pointerId, this.spot(event));
    this.strayed = 0;
    this.canvas.setPointerCapture(event.pointerId);
  }

  dragged(event) {
    const spot = this.spot(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      this.hover(this.nearest(spot, 12));
      return;
    }
    const [dx, dy] = [spot[0] - before[0], spot[1] - before[1]];
    this.strayed += Math.hypot(dx, dy);
    if (this.pointers.size === 2) this.pinched(event.pointerId, before, spot);
    else if (this.strayed > 4) {
      this.canvas.classList.add("grabbed");
      this.view.drag(dx, dy);
      this.draw();
    }
    this.pointers.set(event.pointerId, spot);
  }

  pinched(id, before, spot) {
    const other = [...this.pointers].find(([key]) => key !== id)[1];
    const apart = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]);
    this.zoom(apart(spot) / Math.max(1, apart(before)), [(spot[0] + other[0]) / 2, (spot[1] + other[1]) / 2]);
  }

  released(event) {
    const alone = this.pointers.size === 1;
    if (!this.pointers.delete(event.pointerId)) return;
    this.canvas.classList.remove("grabbed");
    if (!alone || this.strayed > 6) return;
    const point = this.nearest(this.spot(event), event.pointerType === "touch" ? 26 : 14);
    if (point) this.onPick(point.icao);
  }

  hover(point) {
    if (point === this.hovered) return;
    this.hovered = point;
    this.canvas.classList.toggle("over", point !== null);
    this.draw();
  }

  wheeled(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), this.spot(event));
  }
}
