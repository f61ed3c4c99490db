// The plots of plotly: curves, points, parallel coordinates.

import { address, all, column, data, distinct, escaped, front, runs, spelled, titled, value } from "runs";

const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const CONFIG = { displaylogo: false, responsive: true, displayModeBar: matchMedia("(max-width: 700px)").matches ? false : "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

function layout(x, y, more = {}) {
  const axis = { gridcolor: ink("--line"), linecolor: ink("--soft"), zeroline: false, automargin: true, ticks: "outside" };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink("--ink"), size: 12, family: getComputedStyle(document.body).fontFamily },
    margin: { l: 56, r: 12, t: 12, b: 44 }, hovermode: "closest",
    hoverlabel: { bgcolor: ink("--card"), bordercolor: ink("--soft"), font: { color: ink("--ink") }, align: "left", namelength: 0 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } },
    xaxis: { ...axis, title: { text: escaped(x) } }, yaxis: { ...axis, title: { text: escaped(y) } }, ...more,
  };
}

function draw(plot, traces, shape, empty) {
  if (!traces.length) {
    for (const axis of [shape.xaxis, shape.yaxis]) axis.visible = false;
    shape.annotations = [{ text: empty, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { color: ink("--soft") } }];
  }
  Plotly.react(plot, traces, shape, CONFIG);
  if (plot.dataset.clicks) return;
  plot.dataset.clicks = "open the run";
  plot.on("plotly_click", ({ points: [point] }) => { if (point.customdata) location.hash = address(point.customdata[0]); });
}

// One trace of plotly per group, interrupted between runs, so that hundreds of runs are drawn fast.
export function curves(plot, { metrics, over, chosen, levels, title }) {
  const kept = levels.groups.flatMap((group, i) => metrics.map((metric, m) => {
    const trace = { x: [], y: [], customdata: [] };
    for (const run of chosen.filter((run) => levels.of(run) === i)) {
      const { curves, steps_per_epoch: per } = runs[run];
      if (!curves[metric] || (over === "epoch" && !per)) continue;
      const [steps, values] = curves[metric];
      const { times } = data.metrics[metric];
      const told = [run, escaped(value(run, "run"))];
      steps.forEach((step, j) => {
        trace.x.push(over === "epoch" ? step / per : step);
        trace.y.push(values[j] === null ? null : values[j] * times);
        trace.customdata.push(told);
      });
      trace.x.push(null); trace.y.push(null); trace.customdata.push(told);
    }
    return {
      ...trace, name: escaped(group.label ?? metric), mode: trace.x.length < 60 ? "lines+markers" : "lines", connectgaps: false,
      line: { color: group.colours?.[m] ?? group.colour, width: chosen.length > 40 ? 1 : 1.6 }, marker: { size: 4 },
      opacity: chosen.length > 40 ? 0.7 : 1, hovertemplate: `%{customdata[1]}<br>${over} %{x:.4~g}: %{y:.4~g}`,
    };
  })).filter((trace) => trace.x.length);
  const y = title ?? titled({ name: metrics[0], unit: data.metrics[metrics[0]]?.unit });
  draw(plot, kept, layout(over, y, { showlegend: kept.length > 1 }), "no such curves");
}

const places = (name, among) => (column(name).number ? null : distinct(name, among).filter((it) => it !== null).map(spelled));
const spread = (chosen, name) => {
  const numbers = chosen.map((run) => value(run, name)).filter((it) => it > 0);
  return column(name).number && numbers.length === chosen.length && Math.max(...numbers) > 8 * Math.min(...numbers);
};

function ticks(chosen, name) {
  const [low, high] = extent(chosen.map((run) => value(run, name))).map(Math.log10);
  const steps = high - low < 2 ? [1, 1.5, 2, 3, 5, 7] : [1, 3];
  const decades = Array.from({ length: Math.ceil(high) - Math.floor(low) + 2 }, (_, i) => 10 ** (Math.floor(low) - 1 + i));
  return decades.flatMap((decade) => steps.map((step) => step * decade));
}

export function scatter(plot, { x, y, chosen, levels }) {
  const known = chosen.filter((run) => value(run, x) !== null && value(run, y) !== null);
  const at = (run, name) => (column(name).number ? value(run, name) : spelled(value(run, name)));
  const best = front(known, x, y);
  const traces = levels.groups.map((group, i) => {
    const members = known.filter((run) => levels.of(run) === i);
    return {
      x: members.map((run) => at(run, x)), y: members.map((run) => at(run, y)), mode: "markers", name: escaped(group.label),
      customdata: members.map((run) => [run, escaped(value(run, "run"))]), marker: { color: group.colour, symbol: group.sign, size: 8, opacity: 0.85 },
      hovertemplate: "%{customdata[1]}<br>%{xaxis.title.text}: %{x}<br>%{yaxis.title.text}: %{y}",
    };
  }).filter((trace) => trace.x.length);
  if (best.length) traces.push({
    x: best.map((run) => value(run, x)), y: best.map((run) => value(run, y)), mode: "lines+markers", name: "Pareto front", hoverinfo: "skip",
    line: { color: ink("--soft"), width: 1.2, dash: "dot" },
    marker: { color: "rgba(0,0,0,0)", size: 15, line: { color: ink("--ink"), width: 1.6 } },
  });
  const way = (name) => (best.length ? { 1: "more is better", "-1": "less is better" }[column(name).better] : "");
  const shape = layout(titled(column(x)), titled(column(y)), { showlegend: traces.length > 1 });
  for (const [axis, name] of [[shape.xaxis, x], [shape.yaxis, y]]) {
    const words = places(name, known);
    if (words) Object.assign(axis, { type: "category", categoryorder: "array", categoryarray: words });
    else if (spread(known, name)) Object.assign(axis, { type: "log", tickvals: ticks(known, name), tickformat: "~s" });
    if (way(name)) axis.title.text += `<span style="color:${ink("--soft")}">, ${way(name)}</span>`;
  }
  draw(plot, traces, shape, known.length < chosen.length ? "no chosen run has both" : "no runs");
}

// names: columns, of which the last gives the colour. brushed: called with the runs in all ranges, or null without ranges.
const ranges = {};
const extent = (values) => {
  const numbers = values.filter((it) => it !== null);
  return [Math.min(...numbers), Math.max(...numbers)];
};
export function parallel(plot, { names, chosen, brushed }) {
  const tint = names.at(-1);
  const known = chosen.filter((run) => value(run, "status") === "done" &&
    names.every((name) => column(name).chosen || value(run, name) !== null));
  const done = all.filter((run) => value(run, "status") === "done");
  const axes = names.map((name) => {
    const found = distinct(name, done);
    const words = column(name).number && !(column(name).chosen && found.length <= 12) ? null : found;
    const at = (run) => (words ? words.indexOf(value(run, name)) : value(run, name));
    const ticks = words && { tickvals: words.map((_, i) => i), ticktext: words.map((it) => (it === null ? "(none)" : spelled(it))) };
    const span = words ? [0, words.length - 1] : extent(done.map(at));
    return { name, at, dimension: { label: titled(column(name)).replace(" (", "<br>("), range: span, values: known.map(at), constraintrange: ranges[name], ...ticks } };
  });
  const trace = {
    type: "parcoords", dimensions: axes.map((axis) => axis.dimension), labelfont: { size: 12 }, tickfont: { size: 11 }, rangefont: { color: "rgba(0,0,0,0)" }, // ticks show the range
    line: { color: known.map((run) => value(run, tint)), colorscale: "Viridis", showscale: true, colorbar: { title: { text: titled(column(tint)), side: "right" }, thickness: 12 } },
    unselected: { line: { color: ink("--line"), opacity: 0.3 } },
  };
  Plotly.react(plot, known.length ? [trace] : [], layout("", "", { margin: { l: 90, r: 30, t: 70, b: 30 } }), CONFIG);
  plot.removeAllListeners("plotly_restyle");
  plot.on("plotly_restyle", () => {
    const dimensions = plot.data[0].dimensions;
    axes.forEach(({ name }, i) => { ranges[name] = dimensions[i].constraintrange; });
    const limits = axes.filter(({ name }) => ranges[name]).map(({ name, at }) => ({ at, within: [ranges[name]].flat(Array.isArray(ranges[name][0]) ? 1 : 0) }));
    const holds = (run) => limits.every(({ at, within }) => at(run) !== null && within.some(([low, high]) => low <= at(run) && at(run) <= high));
    brushed(limits.length ? new Set(all.filter(holds)) : null);
  });
  return known.length;
}
export const clearRanges = () => { for (const name in ranges) delete ranges[name]; };
