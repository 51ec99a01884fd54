// Which part of the world a map shows: equirectangular, true at the country's middle latitude.

// Above and below, where the numbers are, and as much on both sides of a wide map.
const PADDING = 36;
const CLOSEST = 200;
const FRAMED_CLOSEST = 12;
// In degrees, so that a country with one airport is no point without a place.
const LEAST_EXTENT = 0.5;
const MAIN_SHARE = 0.85;

export class View {
  constructor() {
    this.width = 0;
    this.height = 0;
    this.zoom = 1;
    this.middle = [0, 0];
    this.flat = 1;
    this.west = -180;
    // Whether the user has moved it since it was last chosen, and how often in all.
    this.moved = false;
    this.hands = 0;
  }

  // `places` are latitudes and longitudes; the result are points on the plane.
  enter(places) {
    const latitudes = places.map(([latitude]) => latitude);
    const middle = places.length ? (least(latitudes) + most(latitudes)) / 2 : 0;
    this.flat = Math.max(0.15, Math.cos((middle * Math.PI) / 180));
    this.west = westernEdge(places.map(([, longitude]) => longitude));
    const points = places.map(([latitude, longitude]) => this.projected(latitude, longitude));
    this.whole = boxOf(points);
    this.home = boxOf(mainPart(points, this.whole));
    this.goHome();
    return points;
  }

  projected(latitude, longitude) {
    return { x: ((((longitude - this.west) % 360) + 360) % 360) * this.flat, y: -latitude };
  }

  // -- the view --------------------------------------------------------------------------------------------------

  get ready() {
    return Boolean(this.home) && this.width > 0;
  }

  get scale() {
    return this.zoom * this.fitting(this.home);
  }

  // Pixels for a degree, so that the box fills the map.
  fitting({ wide, high }) {
    const width = Math.max(60, this.width - 2 * Math.min(PADDING, this.width / 16));
    const height = Math.max(60, this.height - 2 * PADDING);
    return Math.min(width / wide, height / high);
  }

  goHome() {
    this.look(this.home);
  }

  goWhole() {
    this.look(this.whole);
  }

  // Look at some points, which are not as large as a country.
  frame(points) {
    this.look(boxOf(points));
  }

  look(box) {
    this.middle = [...box.middle];
    this.zoom = Math.min(FRAMED_CLOSEST, this.fitting(box) / this.fitting(this.home));
    this.moved = false;
  }

  get isWhole() {
    return !this.moved && this.zoom <= this.farthest * 1.001;
  }

  // Whether `fit` would show another part.
  get canFit() {
    return this.moved || this.farthest < 1 || this.zoom !== 1;
  }

  get farthest() {
    return Math.min(1, this.fitting(this.whole) / this.fitting(this.home));
  }

  zoomTo(zoom, at = [this.width / 2, this.height / 2]) {
    const [x, y] = this.unplaced(at);
    this.zoom = Math.min(CLOSEST, Math.max(this.farthest, zoom));
    this.middle = [x - (at[0] - this.width / 2) / this.scale, y - (at[1] - this.height / 2) / this.scale];
    this.touched();
  }

  drag(dx, dy) {
    this.middle = [this.middle[0] - dx / this.scale, this.middle[1] - dy / this.scale];
    this.touched();
  }

  // The country never leaves the map.
  touched() {
    this.moved = true;
    this.hands += 1;
    const { left, right, top, bottom } = this.whole;
    this.middle = [clamped(this.middle[0], left, right), clamped(this.middle[1], top, bottom)];
  }

  // Move just as much as it takes for the point to lie in the part that nothing covers.
  uncover(point, covered, margin = 60) {
    const [left, top] = this.placed(point);
    const room = this.width - covered;
    const x = clamped(left, Math.min(margin, room / 2), Math.max(room - margin, room / 2));
    const y = clamped(top, Math.min(margin, this.height / 2), Math.max(this.height - margin, this.height / 2));
    this.middle = [this.middle[0] - (x - left) / this.scale, this.middle[1] - (y - top) / this.scale];
  }

  save() {
    return { zoom: this.zoom, middle: [...this.middle], moved: this.moved, hands: this.hands };
  }

  restore(saved) {
    Object.assign(this, saved);
  }

  // -- points on the screen --------------------------------------------------------------------------------------

  placed(point) {
    return [
      (point.x - this.middle[0]) * this.scale + this.width / 2,
      (point.y - this.middle[1]) * this.scale + this.height / 2,
    ];
  }

  unplaced([left, top]) {
    return [(left - this.width / 2) / this.scale + this.middle[0], (top - this.height / 2) / this.scale + this.middle[1]];
  }

  holds(point) {
    const [left, top] = this.placed(point);
    return left > 0 && left < this.width && top > 0 && top < this.height;
  }
}

const clamped = (value, low, high) => Math.min(Math.max(value, low), high);
const least = (values) => values.reduce((one, other) => Math.min(one, other), values.length ? Infinity : 0);
const most = (values) => values.reduce((one, other) => Math.max(one, other), values.length ? -Infinity : 0);

function boxOf(points) {
  const [xs, ys] = [points.map((point) => point.x), points.map((point) => point.y)];
  const [left, right, top, bottom] = [least(xs), most(xs), least(ys), most(ys)];
  const middle = [(left + right) / 2, (top + bottom) / 2];
  return { left, right, top, bottom, middle, wide: Math.max(right - left, LEAST_EXTENT), high: Math.max(bottom - top, LEAST_EXTENT) };
}

// The points that lie together, without islands and regions far away, if nearly all do. Otherwise all points.
function mainPart(points, box) {
  const size = Math.hypot(box.wide, box.high) * 0.03;
  const cells = new Map();
  for (const point of points) {
    const key = `${Math.floor(point.x / size)} ${Math.floor(point.y / size)}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(point);
  }
  let best = [];
  for (const first of [...cells.keys()]) {
    const [found, waiting] = [[], [first]];
    while (waiting.length) {
      const key = waiting.pop();
      if (!cells.has(key)) continue;
      found.push(...cells.get(key));
      cells.delete(key);
      const [column, row] = key.split(" ").map(Number);
      for (const across of [-1, 0, 1]) for (const down of [-1, 0, 1]) waiting.push(`${column + across} ${row + down}`);
    }
    if (found.length > best.length) best = found;
  }
  return best.length >= points.length * MAIN_SHARE ? best : points;
}

// Where to cut the globe open: in the widest gap between neighbours, so that no country is torn at 180°.
function westernEdge(longitudes) {
  const sorted = [...longitudes].sort((one, other) => one - other);
  if (!sorted.length) return -180;
  let [edge, widest] = [sorted[0], sorted[0] + 360 - sorted.at(-1)];
  for (let at = 1; at < sorted.length; at += 1) {
    const gap = sorted[at] - sorted[at - 1];
    if (gap > widest) [edge, widest] = [sorted[at], gap];
  }
  return edge - Math.min(widest / 2, 20);
}
