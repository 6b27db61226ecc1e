// Lines and dots in an SVG, as courseware/widgets/lines.py draws them.

const [WIDTH, HEIGHT] = [370, 280];
const [LEFT, RIGHT, TOP, BOTTOM] = [50, 12, 12, 50];
const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
const raised = (power) => [...String(power)].map((c) => RAISED[c]).join("");
const minus = (text) => text.replace("-", "−");
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;").replace(/'/g, "&#x27;");

/** A number with about three significant digits, as a person would write it. */
export function number(value) {
  if (value === 0) return "0";
  const power = Math.floor(Math.log10(Math.abs(value)) + 1e-12);
  if (power >= -4 && power < 5) {
    const text = value.toFixed(Math.max(0, 2 - power));
    return minus(text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text);
  }
  return `${minus((value / 10 ** power).toFixed(1))} · 10${raised(power)}`;
}

const line = (x1, y1, x2, y2, opacity) =>
  `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" stroke="currentColor" stroke-opacity="${opacity}"/>`;
const text = (x, y, words, anchor) =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}" font-size="16" fill="currentColor">${escaped(words)}</text>`;

/** series: {colour, points, width, opacity, dots}; axes: {x, y, log, xticks, yticks, xlabel}; see lines.py. */
export function plot(series, axes, alt) {
  const across = (x) => LEFT + ((x - axes.x[0]) / (axes.x[1] - axes.x[0])) * (WIDTH - LEFT - RIGHT);
  const up = (value) => {
    const [low, high] = axes.y;
    const y = Math.min(Math.max(axes.log ? Math.log10(Math.max(value, 1e-300)) : value, low), high);
    return HEIGHT - BOTTOM - ((y - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  };
  const parts = [];
  for (const tick of axes.yticks) {
    const place = up(axes.log ? 10 ** tick : tick);
    parts.push(line(LEFT, place, WIDTH - RIGHT, place, tick === 0 ? 0.35 : 0.15));
    parts.push(text(LEFT - 7, place + 5, axes.log ? `10${raised(tick)}` : minus(String(tick)), "end"));
  }
  for (const tick of axes.xticks) parts.push(text(across(tick), HEIGHT - BOTTOM + 23, minus(String(tick)), "middle"));
  if (axes.x[0] < 0 && axes.x[1] > 0) parts.push(line(across(0), TOP, across(0), HEIGHT - BOTTOM, 0.35));
  parts.push(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, axes.xlabel, "middle"));
  for (const { colour, points, width, opacity, dots } of series) {
    const path = points.map(([x, y]) => `${across(x).toFixed(1)},${up(y).toFixed(1)}`).join(" ");
    parts.push(`<polyline fill="none" stroke="${colour}" stroke-width="${width}" stroke-opacity="${opacity}" stroke-linejoin="round" points="${path}"/>`);
    for (const [x, y] of dots) parts.push(`<circle cx="${across(x).toFixed(1)}" cy="${up(y).toFixed(1)}" r="5" fill="${colour}"/>`);
  }
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escaped(alt)}" style="display:block;width:100%;max-width:30rem">${parts.join("")}</svg>`;
}
