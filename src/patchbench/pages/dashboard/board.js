// The dashboard: one table of runs; all other views show the runs that pass its filters.

import DataTable, { set_or_remove_dark_class } from "datatables";
import { address, all, column, columns, data, distinct, escaped, headed, levels, runNamed, spelled, titled, value } from "runs";
import { clearRanges, curves, parallel, scatter } from "plots";
import { compare, gallery, pictureNames, show } from "details";

const $ = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
const has = (name) => column(name) !== undefined && distinct(name).some((it) => it !== null);
const varies = (name) => column(name)?.varied;
const first = (...names) => names.find(has);
const score = first("test/acc", "val/acc_best", "val/acc") ?? "status";
const memory = first("final/gpu_peak_allocated_gib", "final/cpu_rss_gib");

function fill(select, names, at, label = (name) => name) {
  select.replaceChildren(...names.map((name) => new Option(label(name), name, false, name === at)));
}

// The table: first the tick box, then factors, columns that vary, and the main metrics.

// On a phone the score is beside the run, then the factors; the other columns are reached by a swipe.
const narrow = matchMedia("(max-width: 700px)").matches;
const rank = (one) => ["run", score].indexOf(one.name) + 1 || (one.chosen ? 3 : one.name === "status" ? 5 : 4);
const listed = columns.filter((one) => one.chosen || one.varied || one.shown);
if (narrow) listed.sort((a, b) => rank(a) - rank(b));

const cell = ({ name }) => (it, how, row, { row: run }) => {
  if (how !== "display") return how === "sort" || how === "type" ? it : spelled(it);
  return name === "run" ? `<a href="${escaped(address(run))}">${escaped(it)}</a>` : escaped(spelled(it));
};
const menu = (one) => (one.name === "run" || (one.number && (one.name.includes("/") || distinct(one.name).length > 20)) ? ["search"] : ["searchList"]);
$("table").innerHTML = `<thead><tr><th></th>${listed.map((one) => `<th>${headed(one)}</th>`).join("")}</tr></thead>`;
const table = new DataTable("#table", {
  data: data.rows,
  columns: [
    { data: null, defaultContent: "", orderable: false, searchable: false, render: DataTable.render.select(), columnControl: [] },
    ...listed.map((one) => ({
      data: columns.indexOf(one), name: one.name, visible: one.shown, render: cell(one), columnControl: ["order", menu(one)],
      className: (one.number ? "dt-right" : "dt-left") + (one.name === "run" ? " run" : ""), createdCell: (td, it) => { if (one.name === "status") td.classList.add(it); },
    })),
  ],
  order: [[listed.indexOf(column(score)) + 1, "desc"]],
  ordering: { indicators: false, handler: true },
  pageLength: 15, lengthMenu: [15, 50, 200, -1], scrollX: true, deferRender: true, autoWidth: false,
  select: { style: "multi", selector: "td:first-child", headerCheckbox: false, info: false },
  language: { search: "", searchPlaceholder: "find in any column", info: "_START_ to _END_ of _TOTAL_ runs", infoFiltered: "(of _MAX_)", lengthMenu: "_MENU_ a page" },
  layout: {
    topStart: { buttons: [{ extend: "colvis", text: "columns", columns: ":gt(0)", collectionLayout: "three-column", background: false }, { extend: "csv", text: "CSV", filename: "runs", exportOptions: { columns: ":gt(0)", orthogonal: "filter" } }] },
    topEnd: "search", bottomStart: "info", bottomEnd: ["pageLength", "paging"],
  },
});
$("table").addEventListener("click", ({ target }) => {
  const row = target.closest("tbody tr");
  if (row && !target.closest("a, input, td:first-child")) location.hash = address(table.row(row).index());
});
table.on("select deselect", () => compare($("comparison"), table.rows({ selected: true }).indexes().toArray()));

// The runs that pass the filters of the table, for all views.

let chosen = [];
let brush = null;
const left = () => table.rows({ search: "applied", order: "index" }).indexes().toArray();

const groups = () => levels($("colour").value, dark.matches);

function drawCurves(panel) {
  const metric = panel.querySelector(".metric").value;
  curves(panel.querySelector(".plot"), { metrics: [metric], over: $("over").value, chosen, levels: groups() });
}
function drawPair(panel) {
  const [x, y] = [...panel.querySelectorAll("select")].map((select) => select.value);
  if (x) scatter(panel.querySelector(".plot"), { x, y, chosen, levels: groups() });
}
const drawn = { curves: drawCurves, pair: drawPair, coordinates, gallery: drawGallery };
function drawGallery() {
  gallery($("shown"), $("picturenote"), $("picture").value, chosen);
}

// A view is drawn when it is scrolled into sight.

const views = document.querySelectorAll("[data-view]");
const inSight = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    inSight[isIntersecting ? "add" : "delete"](target);
    refresh(target);
  }
  document.documentElement.dataset.ready ??= Math.round(performance.now());
}, { rootMargin: "100px" });

function refresh(view) {
  if (view.ariaBusy !== "true" || !inSight.has(view)) return;
  drawn[view.dataset.view](view);
  view.ariaBusy = "false";
}
function change(kept) {
  for (const view of views) if (view !== kept) {
    view.ariaBusy = "true";
    refresh(view);
  }
}

const chosenAt = data.factors.filter((name) => name !== "seed" && varies(name));
const axes = [...chosenAt];
axes.push(...["final/images_per_s", memory, score].filter((name) => name && varies(name)));

function coordinates() {
  const plot = $("coordinates").querySelector(".plot");
  const enough = axes.length > 1 && column(axes.at(-1)).number;
  const others = brush ? unbrushed() : chosen;
  plot.hidden = !enough;
  const lacking = others.length - (enough ? parallel(plot, { names: axes, chosen: others, brushed }) : 0);
  $("parallelnote").textContent = !enough ? "The runs differ in no factor." :
    "Drag along an axis to choose a range, click the axis to let it go; drag a name to move its axis." +
    (lacking ? ` ${lacking} without all of these figures ${lacking === 1 ? "is" : "are"} not drawn.` : "");
}

function brushed(found) {
  brush = found;
  filterByBrush();
  table.draw();
}
function filterByBrush() {
  table.search.fixed("brush", brush && ((_, row, run) => brush.has(run)));
}
function unbrushed() {
  quiet = true;
  table.search.fixed("brush", null).draw(false);
  const found = left();
  filterByBrush();
  table.draw(false);
  quiet = false;
  return found;
}

let quiet = false;
let brushBefore = null;
function follow(always) {
  if (quiet) return;
  const now = left();
  if (!always && String(now) === String(chosen)) return;
  chosen = now;
  $("chosen").textContent = chosen.length === all.length ? `all ${all.length} runs` : `${chosen.length} of ${all.length} runs`;
  change(!always && brush !== brushBefore ? $("coordinates") : null); // the parallel coordinates already show their ranges
  brushBefore = brush;
}
table.on("draw", () => follow(false));
$("reset").addEventListener("click", () => {
  clearRanges();
  brush = null;
  filterByBrush();
  table.columns().columnControl.searchClear();
  table.search("").draw();
  follow(true);
});

// Selection of metrics, axes and colours.

const grouping = columns.filter(({ name, number }) => !number || distinct(name).length <= 8).map(({ name }) => name);
const colours = [...new Set([...grouping.filter(varies), ...columns.filter(({ name, number }) => number && varies(name)).map(({ name }) => name)])];
const usual = [...chosenAt, "status"].find(varies) ?? "run";
fill($("colour"), colours.length ? colours : ["status"], usual, (name) => titled(column(name)));
const metrics = Object.keys(data.metrics);
document.querySelectorAll(".metric").forEach((select) => {
  const at = metrics.includes(select.dataset.at) ? select.dataset.at : metrics[0];
  fill(select, metrics, at);
});
const ranged = columns.filter(({ name }) => varies(name) && name !== "run" && name !== "identity").map(({ name }) => name);
document.querySelectorAll(".pair").forEach((panel) => {
  panel.innerHTML = `<label>x <select></select></label><label>y <select></select></label><div class="plot"></div>`;
  const [x, y] = panel.querySelectorAll("select");
  const wanted = panel.dataset.x === "memory" ? memory : panel.dataset.x;
  panel.hidden = !ranged.length;
  fill(x, ranged, ranged.includes(wanted) ? wanted : ranged[0], (name) => titled(column(name)));
  fill(y, ranged, ranged.includes(score) ? score : ranged[0], (name) => titled(column(name)));
});
fill($("picture"), pictureNames());
$("gallery").hidden = !pictureNames().length;
document.querySelectorAll("#board select").forEach((select) => {
  if (!select.closest("#tables")) select.addEventListener("change", () => change(null));
});
dark.addEventListener("change", () => follow(true));

// The page of a run has an address of its own, so that the back button of the browser returns to the table.

let scrolled = 0;
function turn() {
  const asked = /^#run=(.*)$/.exec(location.hash);
  const run = asked ? runNamed(decodeURIComponent(asked[1])) : undefined;
  if (run !== undefined && $("run").hidden) scrolled = scrollY;
  const back = run === undefined && !$("run").hidden;
  $("board").hidden = run !== undefined;
  $("run").hidden = run === undefined;
  if (run !== undefined) {
    show($("run"), run);
    scrollTo(0, 0);
  } else if (back) {
    $("run").replaceChildren();
    scrollTo(0, scrolled);
  }
}

const counts = distinct("status").map((status) => `${all.filter((run) => value(run, "status") === status).length} ${status}`);
$("summary").textContent = `${all.length} runs: ${counts.join(", ")}. Read ${data.read}.`;
set_or_remove_dark_class();
compare($("comparison"), []);
follow(true);
addEventListener("hashchange", turn);
turn();
views.forEach((view) => watcher.observe(view));
