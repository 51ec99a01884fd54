// Coasts and borders: Natural Earth (public domain), made small by coastline.py, which describes the file.

const BASE = 45;
const DIGITS = Array.from({ length: 94 }, (_, at) => String.fromCharCode(33 + at)).filter((each) => !'"\\/'.includes(each));
const VALUES = new Map(DIGITS.slice(0, 2 * BASE).map((each, at) => [each, at]));

export class Coast {
  // The paths for a projection that makes degrees of longitude `flat` times as wide as those of latitude.
  paths(flat) {
    if (this.lines && this.made?.flat !== flat) this.made = { flat, ...this.make(flat) };
    return this.made;
  }

  async load() {
    const file = await (await fetch("/static/coast.json")).json();
    this.lines = decoded(file.lines, file.perDegree);
    const line = (index) => (index < 0 ? [...this.lines[~index]].reverse() : this.lines[index]);
    this.rings = [...this.lines.slice(0, file.islands), ...file.land.map((ring) => ring.flatMap(line))].map(unwrapped);
    this.borders = file.borders.map((index) => unwrapped(line(index)));
  }

  make(flat) {
    const [land, shore, borders] = [new Path2D(), new Path2D(), new Path2D()];
    for (const ring of this.rings) {
      draw(shore, ring, flat);
      draw(land, [...ring, ...overThePole(ring)], flat);
      land.closePath();
    }
    for (const line of this.borders) draw(borders, line, flat);
    return { land, shore, borders };
  }
}

function draw(path, points, flat) {
  points.forEach(([longitude, latitude], at) => {
    if (at) path.lineTo(longitude * flat, -latitude);
    else path.moveTo(longitude * flat, -latitude);
  });
}

// Over 180° a line goes on to 181°, and not back to -179°.
function unwrapped(points) {
  let before = points[0][0];
  return points.map(([longitude, latitude]) => {
    before = longitude + 360 * Math.round((before - longitude) / 360);
    return [before, latitude];
  });
}

// Antarctica goes round the world, so its ring closes at the pole.
function overThePole(ring) {
  const [first, last] = [ring[0], ring.at(-1)];
  return Math.abs(first[0] - last[0]) > 180 ? [[last[0], -90], [first[0], -90]] : [];
}

function decoded(text, perDegree) {
  let [x, y] = [0, 0];
  return text.split(" ").map((line) => {
    const points = [];
    const numbers = numbersOf(line);
    for (let at = 0; at < numbers.length; at += 2) {
      [x, y] = [x + numbers[at], y + numbers[at + 1]];
      points.push([x / perDegree, y / perDegree]);
    }
    return points;
  });
}

function numbersOf(line) {
  const numbers = [];
  let [value, place] = [0, 1];
  for (const each of line) {
    const digit = VALUES.get(each);
    value += (digit % BASE) * place;
    place *= BASE;
    if (digit < BASE) {
      numbers.push(value % 2 ? -(value - 1) / 2 : value / 2);
      [value, place] = [0, 1];
    }
  }
  return numbers;
}
