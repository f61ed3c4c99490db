// The runs and their columns. Values are those that are shown: shares in per cent.

export const data = JSON.parse(document.getElementById("data").textContent);
export const { columns, runs } = data;
const place = new Map(columns.map((column, i) => [column.name, i]));

for (const row of data.rows)
  columns.forEach((column, i) => { if (column.times !== 1 && row[i] !== null) row[i] *= column.times; });

export const all = runs.map((_, run) => run);
export const column = (name) => columns[place.get(name)];
export const value = (run, name) => data.rows[run][place.get(name)] ?? null;

// Options of a run: those that most runs have, and its own; null without a record.
export const config = (run) => runs[run].config &&
  Object.fromEntries(Object.entries({ ...data.config, ...runs[run].config }).filter(([, it]) => it !== null));
export const titled = ({ name, unit }) => (unit ? `${name} (${unit})` : name);
export const runNamed = (name) => all.find((run) => value(run, "run") === name);
export const address = (run) => "#run=" + encodeURIComponent(value(run, "run"));

// The title with the unit on a second line.
export const headed = ({ name, unit }) => escaped(name) + (unit ? `<br><small>${escaped(unit)}</small>` : "");

// Escaped text for HTML, and for plotly, which interprets tags in text.
export const escaped = (text) =>
  String(text).replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);

export function spelled(it) {
  if (it === null || it === undefined) return "";
  if (typeof it !== "number" || Number.isInteger(it)) return String(it);
  const size = Math.abs(it);
  return size >= 1000 ? String(Math.round(it)) : size < 1e-3 ? it.toExponential(2) : String(+it.toPrecision(4));
}

// Order: numbers by size, then words by the alphabet, then missing values.
const rank = (it) => (it === null ? 2 : typeof it === "number" ? 0 : 1);
export const order = (a, b) =>
  rank(a) - rank(b) || (typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
export const distinct = (name, among = all) => [...new Set(among.map((run) => value(run, name)))].sort(order);

const HUES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c00", "#7f6fd0"]; // Okabe & Ito (2008)
const HUES_ON_BLACK = HUES.with(0, "#4aa3dc").with(1, "#e8702a");
const SHADES = ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#d9c81c"]; // viridis
const SHADES_ON_BLACK = ["#8a6bbf", "#6f83d8", "#3fa3c0", "#22a884", "#7ad151", "#fde725"];
const GREY = "#8a8f94";
const SIGNS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down"];

// At most eight groups by one column, made of all runs, so that the colours do not change when runs are filtered.
export function levels(name, dark) {
  const found = distinct(name);
  const numbers = found.filter((it) => typeof it === "number");
  if (numbers.length > HUES.length) {
    const [low, high] = [numbers[0], numbers.at(-1)];
    const shades = dark ? SHADES_ON_BLACK : SHADES;
    const edge = (i) => spelled(low + ((high - low) * i) / shades.length);
    const groups = shades.map((colour, i) => ({ label: `${edge(i)} to ${edge(i + 1)}`, colour, sign: "circle" }));
    groups.push({ label: "no number", colour: GREY, sign: "circle-open" });
    const at = (it) => Math.min(shades.length - 1, Math.floor(((it - low) / (high - low)) * shades.length));
    return { groups, of: (run) => (typeof value(run, name) === "number" ? at(value(run, name)) : shades.length) };
  }
  const count = (it) => all.filter((run) => value(run, name) === it).length;
  const named = found.length > HUES.length ? [...found].sort((a, b) => count(b) - count(a)).slice(0, 7).sort(order) : found;
  const groups = named.map((it, i) => ({ label: it === null ? "(none)" : spelled(it), colour: (dark ? HUES_ON_BLACK : HUES)[i], sign: SIGNS[i] }));
  if (named.length < found.length) groups.push({ label: "others", colour: GREY, sign: "circle-open" });
  return { groups, of: (run) => { const i = named.indexOf(value(run, name)); return i < 0 ? named.length : i; } };
}

// The Pareto front: runs for which no other run is at least as good in both columns and better in one.
export function front(chosen, x, y) {
  const [fx, fy] = [column(x).better, column(y).better];
  if (!fx || !fy || x === y) return [];
  const points = chosen.map((run) => ({ run, x: fx * value(run, x), y: fy * value(run, y) }));
  points.sort((p, q) => q.x - p.x || q.y - p.y);
  let best = { x: NaN, y: -Infinity };
  const kept = points.filter((p) => {
    if (p.y > best.y) best = p;
    return p.y === best.y && p.x === best.x;
  });
  return kept.reverse().map(({ run }) => run);
}
