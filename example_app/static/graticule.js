// The lines of latitude and longitude of a view, with their degrees.

const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30];
// In pixels, at least.
const APART = 84;

export function graticule(context, view, { line, text }) {
  const stepFor = (pixels) => STEPS.find((each) => each * pixels > APART) ?? STEPS.at(-1);
  const [step, across] = [stepFor(view.scale), stepFor(view.scale * view.flat)];
  const [x0, y0] = view.unplaced([0, 0]);
  const [x1, y1] = view.unplaced([view.width, view.height]);
  context.lineWidth = 1;
  context.strokeStyle = line;
  context.fillStyle = text;
  context.font = "11px system-ui, sans-serif";
  context.beginPath();
  for (let south = Math.ceil(Math.max(y0, -90) / step) * step; south <= Math.min(y1, 90); south += step) {
    const top = Math.round(view.placed({ x: 0, y: south })[1]) + 0.5;
    context.moveTo(0, top);
    context.lineTo(view.width, top);
    const name = `${Math.abs(south).toFixed(step < 1 ? 1 : 0)}°${south < 0 ? "N" : south > 0 ? "S" : ""}`;
    const start = view.width < 600 ? 6 : view.width - context.measureText(name).width - 6;
    if (top > 30 && top < view.height - 40) context.fillText(name, start, top - 4);
  }
  const [first, last] = [x0 / view.flat + view.west, x1 / view.flat + view.west];
  for (let east = Math.ceil(first / across) * across; east <= last; east += across) {
    const left = Math.round(view.placed({ x: (east - view.west) * view.flat, y: 0 })[0]) + 0.5;
    context.moveTo(left, 0);
    context.lineTo(left, view.height);
    const turned = ((((east + 180) % 360) + 360) % 360) - 180;
    const name = `${Math.abs(turned).toFixed(across < 1 ? 1 : 0)}°${turned === -180 ? "" : turned < 0 ? "W" : turned > 0 ? "E" : ""}`;
    if (left > 60 && left < view.width - 60) context.fillText(name, left + 4, 13);
  }
  context.stroke();
}
