// The page of one run, the comparison of several, and their pictures.

import { address, columns, config, data, escaped, runs, spelled, titled, value } from "runs";
import { curves } from "plots";

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
const SHOWN = 24; // largest number of pictures

const facts = (pairs) => `<dl>${pairs.map(([name, it]) => `<div><dt>${name}</dt><dd>${it}</dd></div>`).join("")}</dl>`;
const picture = ({ name, source }, caption = escaped(name)) =>
  `<figure><a href="${escaped(source)}"><img loading="lazy" alt="${escaped(name)}" src="${escaped(source)}"></a><figcaption>${caption}</figcaption></figure>`;
const known = (run, wanted) => columns.filter((column) => wanted(column) && value(run, column.name) !== null)
  .map((column) => [escaped(titled(column)), escaped(spelled(value(run, column.name)))]);

export function show(place, run) {
  const { infinite = {}, log, pictures = [], reports = [], curves: found } = runs[run];
  const status = value(run, "status");
  const parts = [
    `<p><a href="#">← all runs</a></p><h1>${escaped(value(run, "run"))}</h1>`,
    `<p><span class="status ${escaped(status)}">${escaped(status)}</span>${status === "done" ? "" :
      `<span class="soft">, so that there is no record and there are no figures</span>`}</p>`,
  ];
  const factors = known(run, (column) => column.chosen);
  if (factors.length) parts.push(`<h2>What was chosen</h2>`, facts(factors));
  const panels = [...Map.groupBy(Object.keys(data.metrics).filter((name) => found[name]), (name) => data.metrics[name].panel)];
  if (panels.length) parts.push(`<h2>Curves</h2><div class="three">${panels.map(() => `<div class="plot"></div>`).join("")}</div>`);
  if (pictures.length) parts.push(`<h2>Pictures</h2><div class="pictures">${pictures.map((it) => picture(it)).join("")}</div>`);
  if (reports.length) parts.push(`<p>Pages: ${reports.map(({ name, source }) => `<a href="${escaped(source)}">${escaped(name)}</a>`).join(", ")}</p>`);
  if (log) parts.push(`<h2>End of log.txt</h2><pre class="log">${escaped(log)}</pre>`);
  const figures = [...known(run, ({ name }) => name.includes("/")), ...Object.entries(infinite).map((pair) => pair.map(escaped))];
  if (figures.length) parts.push(`<h2>Figures</h2>`, facts(figures));
  if (config(run)) parts.push(`<h2>Configuration</h2>`, facts(Object.entries(config(run)).map((pair) => pair.map(escaped))));
  place.innerHTML = parts.join("\n");
  place.querySelectorAll(".plot").forEach((plot, i) => {
    const [title, metrics] = panels[i];
    const levels = { groups: [{ colours: COLOURS }], of: () => 0 };
    curves(plot, { metrics, over: runs[run].steps_per_epoch ? "epoch" : "step", chosen: [run], levels, title });
  });
}

// The rows in which the chosen runs differ.
export function compare(place, chosen) {
  if (chosen.length < 2) {
    place.innerHTML = `<p class="soft">Tick two rows of the table or more: what differs between them stands here.</p>`;
    return;
  }
  const configs = chosen.map((run) => config(run) ?? {});
  const names = [...new Set(configs.flatMap(Object.keys))];
  const told = columns.filter(({ name }) => name !== "run" && !names.includes(name));
  const lines = [
    ...names.map((name) => [name, configs.map((config) => config[name] ?? "")]),
    ...told.map((column) => [titled(column), chosen.map((run) => spelled(value(run, column.name)))]),
  ].filter(([, cells]) => new Set(cells).size > 1);
  const head = chosen.map((run) => `<th><a href="${escaped(address(run))}">${escaped(value(run, "run"))}</a></th>`).join("");
  const body = lines.map(([name, cells]) => `<tr><td>${escaped(name)}</td>${cells.map((cell) => `<td>${escaped(cell)}</td>`).join("")}</tr>`);
  place.innerHTML = `<div class="scroll"><table class="compared"><tr><th></th>${head}</tr>${body.join("")}</table></div>`;
}

export function gallery(place, note, name, chosen) {
  const found = chosen.flatMap((run) => (runs[run].pictures ?? []).filter((it) => it.name === name).map((it) => [run, it]));
  place.innerHTML = found.slice(0, SHOWN).map(([run, it]) =>
    picture(it, `<a href="${escaped(address(run))}">${escaped(value(run, "run"))}</a>`)).join("");
  note.textContent = found.length > SHOWN ? `the first ${SHOWN} of ${found.length}` : found.length ? "" : "none of the chosen runs has it";
}
export const pictureNames = () => [...new Set(runs.flatMap(({ pictures = [] }) => pictures.map(({ name }) => name)))].sort();
