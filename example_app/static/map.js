// A map drawn from nothing but coordinates: equirectangular, true at the country's middle latitude.

const PADDING = 36;
const FARTHEST = 1;
const CLOSEST = 200;
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30];

export class AirportMap {
  constructor(canvas, { onPick }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.onPick = onPick;
    this.points = [];
    this.shown = null;
    this.selected = "";
    this.hovered = null;
    this.zoom = 1;
    this.middle = [0, 0];
    this.covered = 0;
    this.pointers = new Map();
    new ResizeObserver(() => this.resized()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("pointerdown", (event) => this.pressed(event));
    canvas.addEventListener("pointermove", (event) => this.dragged(event));
    canvas.addEventListener("pointerup", (event) => this.released(event));
    canvas.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
  }

  // -- what is shown ---------------------------------------------------------------------------------------------

  setPoints(points) {
    const shift = westernEdge(points.map((point) => point[2]));
    const middle = points.length ? (min(lats(points)) + max(lats(points))) / 2 : 0;
    this.flat = Math.max(0.15, Math.cos((middle * Math.PI) / 180));
    this.west = shift;
    this.points = points.map(([icao, latitude, longitude]) => ({ icao, ...this.projected(latitude, longitude) }));
    this.byCode = new Map(this.points.map((point) => [point.icao, point]));
    this.shown = null;
    this.fit();
  }

  setShown(codes) {
    this.shown = codes;
    this.draw();
  }

  select(icao) {
    this.selected = icao;
    const point = this.byCode?.get(icao);
    if (point && !this.inView(point)) this.middle = [point.x + this.covered / 2 / this.scale, point.y];
    this.draw();
  }

  // Something lies over the right edge of the map, this many pixels wide.
  cover(pixels) {
    this.covered = pixels;
  }

  projected(latitude, longitude) {
    return { x: ((((longitude - this.west) % 360) + 360) % 360) * this.flat, y: -latitude };
  }

  // -- the view --------------------------------------------------------------------------------------------------

  fit() {
    const xs = this.points.map((point) => point.x);
    const ys = this.points.map((point) => point.y);
    const [left, right, top, bottom] = [min(xs), max(xs), min(ys), max(ys)];
    this.whole = [(left + right) / 2, (top + bottom) / 2];
    // Half a degree at least, so that a country with one airport is no point without a place.
    this.extent = [Math.max(right - left, 0.5), Math.max(bottom - top, 0.5)];
    this.middle = [...this.whole];
    this.zoomTo(FARTHEST);
  }

  get scale() {
    const [wide, high] = [this.width - 2 * PADDING, this.height - 2 * PADDING];
    return this.zoom * Math.max(1, Math.min(wide / (this.extent?.[0] ?? 1), high / (this.extent?.[1] ?? 1)));
  }

  zoomTo(zoom, at = [this.width / 2, this.height / 2]) {
    const [x, y] = this.unplaced(at);
    this.zoom = Math.min(CLOSEST, Math.max(FARTHEST, zoom));
    if (this.zoom === FARTHEST) this.middle = [...(this.whole ?? [0, 0])];
    else this.middle = [x - (at[0] - this.width / 2) / this.scale, y - (at[1] - this.height / 2) / this.scale];
    this.canvas.classList.toggle("zoomed", this.zoom > FARTHEST);
    this.draw();
  }

  closer() { this.zoomTo(this.zoom * 1.6); }
  farther() { this.zoomTo(this.zoom / 1.6); }

  placed(point) {
    return [
      (point.x - this.middle[0]) * this.scale + this.width / 2,
      (point.y - this.middle[1]) * this.scale + this.height / 2,
    ];
  }

  unplaced([left, top]) {
    return [(left - this.width / 2) / this.scale + this.middle[0], (top - this.height / 2) / this.scale + this.middle[1]];
  }

  inView(point) {
    const [left, top] = this.placed(point);
    return left > 0 && left < this.width - this.covered && top > 0 && top < this.height;
  }

  get width() { return this.canvas.clientWidth; }
  get height() { return this.canvas.clientHeight; }

  resized() {
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
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
    if (!this.extent || !this.width) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.context.clearRect(0, 0, this.width, this.height);
    this.graticule(colour("line"), colour("quiet"));
    const crowd = Math.sqrt((this.width * this.height) / Math.max(1, this.points.length));
    const radius = Math.min(5, Math.max(1.3, (crowd / 11) * Math.sqrt(this.zoom)));
    const lit = (point) => this.shown === null || this.shown.has(point.icao);
    this.dots(this.points.filter((point) => !lit(point)), Math.max(1, radius * 0.7), colour("faint-dot"), 1);
    this.dots(this.points.filter(lit), radius, colour("accent"), this.points.length > 3000 ? 0.65 : 0.85);
    for (const point of [this.hovered, this.byCode?.get(this.selected)]) {
      if (point) this.marked(point, radius, colour);
    }
  }

  dots(points, radius, colour, opacity) {
    const { context } = this;
    context.beginPath();
    for (const point of points) {
      const [left, top] = this.placed(point);
      if (left < -radius || top < -radius || left > this.width + radius || top > this.height + radius) continue;
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
    const [left, top] = this.placed(point);
    context.beginPath();
    context.arc(left, top, radius + 5, 0, 2 * Math.PI);
    context.lineWidth = 2.5;
    context.strokeStyle = colour("ink");
    context.stroke();
    context.font = `600 13px ${colour("mono")}`;
    const wide = context.measureText(point.icao).width;
    const start = left + radius + 12 + wide > this.width ? left - radius - 12 - wide : left + radius + 12;
    context.lineWidth = 4;
    context.lineJoin = "round";
    context.strokeStyle = colour("sea");
    context.strokeText(point.icao, start, top + 4);
    context.fillStyle = colour("ink");
    context.fillText(point.icao, start, top + 4);
  }

  graticule(line, text) {
    const { context } = this;
    const perDegree = this.scale;
    const stepFor = (pixels) => STEPS.find((each) => each * pixels > 84) ?? STEPS.at(-1);
    const [step, across] = [stepFor(perDegree), stepFor(perDegree * this.flat)];
    const [x0, y0] = this.unplaced([0, 0]);
    const [x1, y1] = this.unplaced([this.width, this.height]);
    context.lineWidth = 1;
    context.strokeStyle = line;
    context.fillStyle = text;
    context.font = "11px system-ui, sans-serif";
    context.beginPath();
    for (let south = Math.ceil(Math.max(y0, -90) / step) * step; south <= Math.min(y1, 90); south += step) {
      const top = Math.round(this.placed({ x: 0, y: south })[1]) + 0.5;
      context.moveTo(0, top);
      context.lineTo(this.width, top);
      const name = `${Math.abs(south).toFixed(step < 1 ? 1 : 0)}°${south < 0 ? "N" : south > 0 ? "S" : ""}`;
      const start = this.width < 600 ? 6 : this.width - context.measureText(name).width - 6;
      if (top > 30 && top < this.height - 40) context.fillText(name, start, top - 4);
    }
    const [first, last] = [x0 / this.flat + this.west, x1 / this.flat + this.west];
    for (let east = Math.ceil(first / across) * across; east <= last; east += across) {
      const left = Math.round(this.placed({ x: (east - this.west) * this.flat, y: 0 })[0]) + 0.5;
      context.moveTo(left, 0);
      context.lineTo(left, this.height);
      const turned = ((((east + 180) % 360) + 360) % 360) - 180;
      const name = `${Math.abs(turned).toFixed(across < 1 ? 1 : 0)}°${turned === -180 ? "" : turned < 0 ? "W" : turned > 0 ? "E" : ""}`;
      if (left > 60 && left < this.width - 60) context.fillText(name, left + 4, 13);
    }
    context.stroke();
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
      const [left, top] = this.placed(point);
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
    else if (this.zoom > FARTHEST && this.strayed > 4) {
      this.canvas.classList.add("grabbed");
      this.middle = [this.middle[0] - dx / this.scale, this.middle[1] - dy / this.scale];
      this.draw();
    }
    this.pointers.set(event.pointerId, spot);
  }

  pinched(id, before, spot) {
    const other = [...this.pointers].find(([key]) => key !== id)[1];
    const apart = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]);
    this.zoomTo(this.zoom * (apart(spot) / Math.max(1, apart(before))), [(spot[0] + other[0]) / 2, (spot[1] + other[1]) / 2]);
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

  // Where the page itself scrolls, the wheel is the page's, unless it is a pinch.
  wheeled(event) {
    if (!event.ctrlKey && document.documentElement.scrollHeight > innerHeight + 1) return;
    event.preventDefault();
    this.zoomTo(this.zoom * Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), this.spot(event));
  }
}

const lats = (points) => points.map((point) => point[1]);
const min = (values) => values.reduce((least, value) => Math.min(least, value), values.length ? Infinity : 0);
const max = (values) => values.reduce((most, value) => Math.max(most, value), values.length ? -Infinity : 0);

// Where to cut the globe open: in the widest gap between neighbours, so that no country is torn at 180°.
function westernEdge(longitudes) {
  const sorted = [...longitudes].sort((a, b) => a - b);
  if (!sorted.length) return -180;
  let [edge, widest] = [sorted[0], sorted[0] + 360 - sorted.at(-1)];
  for (let at = 1; at < sorted.length; at += 1) {
    const gap = sorted[at] - sorted[at - 1];
    if (gap > widest) [edge, widest] = [sorted[at], gap];
  }
  return edge - Math.min(widest / 2, 20);
}
