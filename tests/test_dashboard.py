"""The dashboard: its content, and, in Chromium, its behaviour."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import configure, some, train_in

from patchbench import html
from patchbench.pages.dashboard.curves import FEWEST, POINTS, complete_windows, curves, points, thin
from patchbench.pages.dashboard.gather import gather, share_config
from patchbench.pages.dashboard.page import write
from patchbench.pages.dashboard.plain import redact_paths, script_json
from patchbench.pages.study.numbers import pareto
from patchbench.runs.metrics import metric
from patchbench.runs.record import to_json

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = "<img src=x onerror=alert(1)>_0badc0de"
FAILED = "conv-7_none_digits_s0_ffffffff"


@pytest.fixture(scope="module")
def trained(once) -> Path:
    """Two real runs."""
    return once("runs-of-the-page", fill)


def fill(root: Path) -> None:
    quick = ["model=micro", "data.img_size=16", "patch=4", "epochs=3", "limit_batches=4", "log_every=1"]
    for i, pos in enumerate(("none", "learned")):
        cfg = configure(*quick, f"pos={pos}", "trainer=cpu", "logger=csv")
        train_in(cfg, root / f"conv-4_{pos}_digits_s0_{i:08x}")


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory) -> Path:
    """Both runs, ten copies of one with other values, a failed run, an unfinished one, and one with a bad name."""
    root = Path(shutil.copytree(trained, tmp_path_factory.mktemp("board") / "runs"))
    done = json.loads((root / "conv-4_none_digits_s0_00000000" / "run.json").read_text())
    for i in range(10):
        done["factors"] |= {"embed": ["linear", "overlap"][i % 2], "patch": [4, None][i % 2], "seed": i}
        done["result"] |= {"test/acc": 0.3 + i * 7 % 10 / 20, "final/images_per_s": 100.0 * (1 + i * 9 % 7)}
        done["result"]["test/loss"] = [1.0, float("nan")][i % 2]
        place = root / f"copy-{i}_{i + 16:08x}"
        place.mkdir()
        (place / "run.json").write_text(to_json(done))
        shutil.copy(root / "conv-4_none_digits_s0_00000000" / "metrics.csv", place)
    for name, log in {FAILED: f"</script><b>{Path.home()}/x</b>\nValueError: patch=7\n", EVIL: "step 1\n"}.items():
        (root / name).mkdir()
        (root / name / "log.txt").write_text(log)
    (root / EVIL / "metrics.csv").write_text("step,name,value\n1,train/loss,2.5\n2,train/loss,nan\n3,train/lo")
    (root / "copy-0_00000010" / "analyze").mkdir()
    (root / "copy-0_00000010" / "analyze" / "index.html").write_text("<p>seen</p>")
    (root / "copy-0_00000010" / "analyze" / "filters.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>'
    )
    return root


def row(data: dict[str, Any], run: str) -> dict[str, Any]:
    names = [column["name"] for column in data["columns"]]
    [found] = [cells for cells in data["rows"] if run in cells]
    return dict(zip(names, found, strict=True))


def test_every_run_is_a_row_with_its_configuration_and_its_curves(runs):
    data = gather(runs, runs / "dashboard.html")
    assert len(data["rows"]) == len(data["runs"]) == 2 + 10 + 2
    assert {cells[2] for cells in data["rows"]} == {"done", "failed", "unfinished"}
    record = json.loads((runs / "conv-4_learned_digits_s0_00000001" / "run.json").read_text())
    told = row(data, "conv-4_learned_digits_s0_00000001")
    assert (told["pos"], told["test/acc"]) == ("learned", record["result"]["test/acc"])
    details = data["runs"][[cells[0] for cells in data["rows"]].index("conv-4_learned_digits_s0_00000001")]
    assert {**data["config"], **details["config"]}["optim.lr"] == str(record["config"]["optim"]["lr"])
    steps, values = details["curves"]["val/acc"]
    assert (len(steps), steps[-1] / details["steps_per_epoch"]) == (3, 3)
    assert values[-1] == pytest.approx(record["result"]["val/acc"], rel=1e-4)


def test_a_window_that_training_cut_short_is_no_point_of_a_curve():
    whole = [(3, 2.0), (13, 1.8), (23, 1.5), (33, 1.2)]
    assert complete_windows(whole) == whole
    assert complete_windows([*whole, (34, 0.2)]) == whole
    assert complete_windows([*whole, (39, 1.1)]) == [*whole, (39, 1.1)]
    assert complete_windows([(1, 2.0), (2, 1.0)]) == [(1, 2.0), (2, 1.0)]


def test_a_network_without_position_says_none(runs):
    data = gather(runs, runs / "dashboard.html")
    runs_by_name = dict(zip([cells[0] for cells in data["rows"]], data["runs"], strict=True))
    assert {**data["config"], **runs_by_name["conv-4_none_digits_s0_00000000"]["config"]}["pos"] == "none"
    assert runs_by_name[FAILED]["config"] is None


def test_columns_that_vary_among_finished_runs_are_shown(runs):
    shown = {c["name"] for c in gather(runs, runs / "dashboard.html")["columns"] if c["shown"]}
    assert {"run", "status", "embed", "pos", "patch", "seed", "test/acc", "final/images_per_s"} <= shown
    assert not {"model", "optim", "identity", "commit"} & shown


def test_what_is_no_number_is_null_and_nothing_closes_the_script(runs):
    data = gather(runs, runs / "dashboard.html")
    text = script_json(data)
    assert "<" not in text

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    again = json.loads(text, parse_constant=refuse)
    assert row(again, "copy-1_00000011")["test/loss"] is None
    assert row(again, EVIL)["run"] == EVIL


def test_a_run_that_was_killed_in_a_line_has_the_curves_before(runs):
    found = curves(runs / EVIL)
    assert found == {"steps_per_epoch": None, "curves": {"train/loss": [[1, 2], [2.5, None]]}}


def test_a_thinned_curve_keeps_its_ends_its_extremes_and_its_gaps():
    rng = np.random.default_rng(0)
    steps = np.arange(10_000)
    values = rng.standard_normal(10_000)
    values[[77, 5_000]] = np.nan, np.inf
    kept, seen = thin(steps, values)
    assert len(kept) <= POINTS + 2
    assert (np.diff(kept) > 0).all()
    assert (values[kept] == seen)[np.isfinite(seen)].all()
    finite = values[np.isfinite(values)]
    assert {0, 77, 5_000, 9_999, *np.flatnonzero((values == finite.min()) | (values == finite.max()))} <= set(kept)
    assert thin(steps[:POINTS], values[:POINTS])[0].tolist() == list(range(POINTS))


def test_curves_are_thinned_the_more_the_more_runs_there_are():
    many = [points(runs) for runs in (1, 500, 1_000, 10_000, 100_000)]
    assert (many[0], many[1], many[-1]) == (POINTS, POINTS, FEWEST)
    assert many == sorted(many, reverse=True)
    steps = np.arange(1_000)
    kept, seen = thin(steps, np.sin(steps), FEWEST)
    assert len(kept) == FEWEST
    assert (seen == np.sin(kept)).all()


def test_options_are_shared_and_every_run_keeps_what_differs():
    runs = [{"config": config} for config in ({"a": "1", "b": "1"}, {"a": "1", "b": "2"}, {"a": "2", "c": "3"}, {})]
    common = share_config(runs)
    assert common == {"a": "1", "b": "1", "c": "3"}
    assert [run["config"] for run in runs] == [{"c": None}, {"b": "2", "c": None}, {"a": "2", "b": None}, None]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("at /home/ada/proj/train.py:3", "at ~/proj/train.py:3"),
        ("/mnt/home/ada and /Users/ada/x", "~ and ~/x"),
        (r"C:\Users\ada\x", r"~\x"),
        ("/root/.netrc, /rooted", "~/.netrc, /rooted"),
        ("under /somewhere/else/runs/a_1", "under /somewhere/else/runs/a_1"),
    ],
)
def test_no_path_tells_whose_machine_it_was(said, shown, tmp_path):
    assert redact_paths(tmp_path)(said) == shown
    assert redact_paths(tmp_path)(f"in {tmp_path}/a_1, {Path.home()}/x") == f"in {tmp_path.name}/a_1, ~/x"


def test_no_home_is_in_the_page(runs):
    text = script_json(gather(runs, runs / "dashboard.html"))
    assert str(Path.home()) + "/" not in text
    assert str(runs) not in text


def test_pictures_are_linked_beside_the_runs_and_inside_elsewhere(runs, tmp_path):
    def of(page: Path) -> dict[str, Any]:
        return next(run for run in gather(runs, page)["runs"] if "pictures" in run)

    inside = of(tmp_path / "board.html")
    assert inside["pictures"][0]["source"].startswith("data:image/svg+xml;base64,")
    assert "reports" not in inside
    for page in (runs / "dashboard.html", runs.parent / "board.html"):
        for link in of(page)["pictures"] + of(page)["reports"]:
            assert (page.parent / link["source"]).exists()


@pytest.mark.parametrize(
    ("name", "times", "unit", "way"),
    [
        ("test/acc", 100, "%", 1),
        ("final/images_per_s", 1, "images/s", 1),
        ("final/gpu_peak_allocated_gib", 1, "GiB", -1),
        ("final/step_ms_median", 1, "ms", -1),
        ("time/wall_s", 1, "s", -1),
        ("final/data_wait_frac", 100, "%", 0),
        ("val/loss", 1, "", -1),
        ("model/grid", 1, "", 0),
    ],
)
def test_columns_have_units_and_a_better_way(name, times, unit, way):
    line = metric(name)
    assert (line.factor, line.unit, line.better) == (times, unit, way)


def test_the_command_writes_one_file_or_says_why_not(command, runs, tmp_path):
    none = command("scripts/dashboard.py")
    assert (none.returncode, none.stdout) == (2, "")
    assert none.stderr.startswith("error: runs_dir=runs is no folder")
    (tmp_path / "runs").mkdir()
    assert command("scripts/dashboard.py").stderr.startswith("error: runs_dir=runs holds no runs: train some")
    assert "run=x is no option" in command("scripts/dashboard.py", "run=x").stderr
    assert "is a folder: give the file" in command("scripts/dashboard.py", f"runs_dir={runs}", "out=runs").stderr
    done = command("scripts/dashboard.py", f"runs_dir={runs}", "out=board.html")
    assert done.stdout.startswith("14 runs, ")
    assert done.stderr == ""
    assert os.listdir(tmp_path / "runs") == []
    assert (tmp_path / "board.html").stat().st_size > 1e6


# In a browser.

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[dev]'")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def written(runs) -> Path:
    return write(runs, None)[0]


@pytest.fixture
def opened(chromium, written) -> Iterator[Any]:
    """The page about the runs; no script may fail, and no request may be sent to a network."""
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(20_000)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("dialog", lambda dialog: (failures.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: failures.append(request.url) if request.url.startswith("http") else None)
    ready(page, written)
    yield page
    page.close()
    assert failures == []


def ready(page: Any, path: Path) -> None:
    """Open the page, and wait until all visible parts are drawn."""
    page.goto(path.resolve().as_uri())
    page.wait_for_function("document.documentElement.dataset.ready")


def column(page: Any, name: str) -> list[str]:
    """Return the visible cells of a column of the table."""
    titles = [title.split("\n")[0] for title in page.locator(".dt-scroll-head th").all_inner_texts()]
    return page.locator(f"#table tbody td:nth-child({titles.index(name) + 1})").all_inner_texts()


def drawn(page: Any, place: str) -> set[int]:
    """Return the runs in a plot, after scrolling it into view."""
    plot = page.locator(f"{place} .plot").first
    plot.scroll_into_view_if_needed()
    page.wait_for_function("plot => plot.closest('[data-view]').ariaBusy === 'false'", arg=plot.element_handle())
    return set(plot.evaluate("plot => plot.data.flatMap(t => t.customdata ?? []).map(([run]) => run)"))


def menu(page: Any, name: str) -> None:
    header = page.locator(".dt-scroll-head th").filter(has_text=re.compile(rf"^{name}"))
    header.locator(".dtcc-button_dropdown").click()


@pytest.mark.slow
@in_browser
def test_a_filter_of_the_table_filters_every_plot(opened):
    assert opened.inner_text("#chosen") == "all 14 runs"
    everything = drawn(opened, "[data-view=pair]")
    assert len(everything) == 12, "those with figures"
    menu(opened, "embed")
    opened.locator(".dtcc-dropdown button", has_text="overlap").click()
    assert opened.inner_text("#chosen") == "5 of 14 runs"
    assert set(column(opened, "embed")) == {"overlap"}
    left = drawn(opened, "[data-view=pair]")
    assert len(left) == 5
    assert left < everything
    assert drawn(opened, "[data-view=curves]") == left
    opened.locator("#coordinates").scroll_into_view_if_needed()
    opened.wait_for_function("document.querySelector('#coordinates .plot').data?.[0].dimensions[0].values.length === 5")
    opened.click("#reset")
    assert opened.inner_text("#chosen") == "all 14 runs"
    assert drawn(opened, "[data-view=pair]") == everything


@in_browser
def test_text_and_numbers_filter_as_they_are_read(opened):
    opened.fill("input[type=search]", "learned")
    assert opened.inner_text("#chosen") == "1 of 14 runs"
    opened.fill("input[type=search]", "")
    menu(opened, "test/acc")
    opened.locator(".dtcc-dropdown select").select_option("greater")
    opened.locator(".dtcc-dropdown input").fill("50")
    opened.wait_for_function("document.querySelector('#chosen').textContent.includes(' of ')")
    shown = [float(cell) for cell in column(opened, "test/acc")]
    assert shown
    assert min(shown) > 50


@in_browser
def test_a_click_on_a_header_sorts(opened):
    head = opened.locator(".dt-scroll-head th").filter(has_text="seed")
    by = head.locator(".dt-column-title")
    by.click()
    head.and_(opened.locator("[aria-sort=ascending]")).wait_for()
    first = [int(cell) for cell in column(opened, "seed") if cell]
    assert first == sorted(first)
    by.click()
    head.and_(opened.locator("[aria-sort=descending]")).wait_for()
    last = [int(cell) for cell in column(opened, "seed") if cell]
    assert last == sorted(last, reverse=True) != first


@in_browser
def test_a_row_opens_its_run_and_back_leads_back(opened):
    opened.locator("#table tbody tr", has_text="copy-0_00000010").locator("td").nth(3).click()
    page = opened.locator("#run")
    assert page.locator("h1").inner_text() == "copy-0_00000010"
    assert opened.locator("#board").is_hidden()
    text = page.inner_text()
    assert all(it in text for it in ("optim.lr", "test/acc (%)", "What was chosen", "analyze/filters"))
    assert page.locator(".plot .scatterlayer .trace").count() >= 6
    image = page.locator("figure img").element_handle()
    opened.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=image)
    opened.go_back()
    opened.wait_for_selector("#board", state="visible")
    assert page.is_hidden()


@in_browser
def test_names_and_logs_are_text(opened):
    opened.fill("input[type=search]", "0badc0de")
    assert column(opened, "run") == [EVIL]
    opened.click("#table tbody a")
    assert opened.inner_text("#run h1") == EVIL
    opened.go_back()
    opened.evaluate("run => { location.hash = '#run=' + run }", FAILED)
    assert opened.inner_text("#run .log").startswith("</script><b>~/x</b>")
    assert opened.locator("#run b").count() == 0


@pytest.mark.slow
@in_browser
def test_ringed_are_the_runs_that_no_other_beats(opened, runs):
    data = gather(runs, runs / "dashboard.html")
    told = [row(data, cells[0]) for cells in data["rows"] if cells[2] == "done"]
    speed, score = ([float(r[name]) for r in told] for name in ("final/images_per_s", "test/acc"))
    front = pareto(speed, score, more_is_better=True)
    drawn(opened, "[data-view=pair]")
    ringed = opened.evaluate(
        "(() => { const t = document.querySelector('.pair .plot').data.find(t => t.name === 'Pareto front');"
        "return t.x.map((x, i) => [x, t.y[i]]) })()"
    )
    assert [x for x, _ in ringed] == sorted(x for x, best in zip(speed, front, strict=True) if best)
    assert [y for _, y in ringed] == pytest.approx(
        sorted((y * 100 for y, b in zip(score, front, strict=True) if b), reverse=True)
    )


@in_browser
def test_a_range_on_an_axis_filters_table_and_plots(opened):
    opened.locator("#coordinates").scroll_into_view_if_needed()
    axis = opened.locator("#coordinates .axis-brush").last.bounding_box()
    x = axis["x"] + axis["width"] / 2
    opened.mouse.move(x, axis["y"] + axis["height"] * 0.05)
    opened.mouse.down()
    opened.mouse.move(x, axis["y"] + axis["height"] * 0.5, steps=8)
    opened.mouse.up()
    opened.wait_for_function("document.querySelector('#chosen').textContent.includes(' of ')")
    scores = sorted(float(cell) for cell in column(opened, "test/acc"))
    assert 0 < len(scores) < 12
    assert len(drawn(opened, "[data-view=pair]")) == len(scores)


@in_browser
def test_ticked_runs_are_compared_in_what_differs(opened):
    for name in ("conv-4_none_digits_s0_00000000", "conv-4_learned_digits_s0_00000001"):
        opened.locator("#table tbody tr", has_text=name).locator("td").first.click()
    lines = opened.locator("#comparison tr td:first-child").all_inner_texts()
    assert "pos" in lines
    assert "pos.learned.tokens.std" in lines
    assert "optim.lr" not in lines
    assert "embed" not in lines


@in_browser
@pytest.mark.parametrize("scheme", some(["light", "dark"], "dark"))
@pytest.mark.parametrize("width", [1400, 420])
def test_every_view_is_drawn_in_both_themes_and_on_narrow_screens(opened, scheme, width):
    opened.set_viewport_size({"width": width, "height": 900})
    opened.emulate_media(color_scheme=scheme)
    for view in opened.locator("[data-view]").all():
        view.scroll_into_view_if_needed()
        opened.wait_for_function("view => view.ariaBusy === 'false'", arg=view.element_handle())
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    ink, ground = (opened.evaluate(f"getComputedStyle(document.body).{it}") for it in ("color", "backgroundColor"))
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, ground)]
    assert (light[0] > light[1]) == (scheme == "dark")
    assert opened.locator(".plot .main-svg").count() >= 5
    for plot in opened.locator(".plot").all():
        assert plot.evaluate("plot => plot.data.length > 0")


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("kept", [FAILED, "conv-4_none_digits_s0_00000000"])
def test_one_run_is_enough_even_without_a_record(opened, runs, tmp_path, kept):
    shutil.copytree(runs / kept, tmp_path / "few" / kept)
    path, count = write(tmp_path / "few", None)
    ready(opened, path)
    assert count == 1
    assert opened.inner_text("#chosen") == "all 1 runs"
    opened.mouse.wheel(0, 5_000)
    opened.wait_for_timeout(300)
    opened.click("#table tbody a")
    assert opened.inner_text("#run h1") == kept


@in_browser
@pytest.mark.slow
@pytest.mark.parametrize("count", [200, 10_000])
def test_many_runs_open_in_under_two_seconds(chromium, trained, tmp_path, count):
    real = sorted(trained.iterdir())
    records = [json.loads((run / "run.json").read_text()) for run in real]
    for i in range(count):
        record = records[i % 2]
        record["factors"] |= {"embed": ["conv", "linear", "overlap"][i % 3], "seed": i // 6}
        record["result"]["test/acc"] = i / count
        place = tmp_path / "runs" / f"copy-{i}_{i:08x}"
        place.mkdir(parents=True)
        (place / "run.json").write_text(to_json(record))
        os.link(real[i % 2] / "metrics.csv", place / "metrics.csv")
    path, _ = write(tmp_path / "runs", None)
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    tools = page.context.new_cdp_session(page)
    tools.send("Performance.enable", {"timeDomain": "threadTicks"})  # what else the machine does counts for nothing
    spent = []
    for _ in range(3):
        page.goto("about:blank")
        ready(page, path)
        spent.append(
            {it["name"]: it["value"] for it in tools.send("Performance.getMetrics")["metrics"]}["TaskDuration"]
        )
    page.close()
    assert min(spent) < 2, spent
    assert path.stat().st_size < 30e6


PHONE = {"width": 390, "height": 844}


@in_browser
def test_a_phone_shows_the_score_beside_the_run(chromium, written):
    page = chromium.new_page(viewport=PHONE)
    ready(page, written)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    titles = [title.split("\n")[0] for title in page.locator(".dt-scroll-head th").all_inner_texts()]
    assert titles[1:3] == ["run", "test/acc"]
    box = page.locator("#table tbody tr:first-child td:nth-child(3)").bounding_box()
    assert box["x"] + box["width"] <= 390
    page.close()


@in_browser
def test_a_phone_cuts_nothing_off_an_article_and_a_tap_enlarges_its_figures(chromium, tmp_path):
    """Rows of the table of steps become blocks: no column lies beyond the edge, and no row is too tall."""
    words = "a sentence that says what happens here, and takes several lines on a phone, as sentences do"
    body = html.table_html(
        ["step", "shape", "values", "what happens"], [["image", "64 × 64 × 3", "9", words]], [1, 2], "steps"
    )
    body += html.figure_html(b"", "a figure", "a caption", "a reading <of it>")
    (tmp_path / "page.html").write_text(html.article("title", body), encoding="utf-8")
    for width, enlarged in ((390, 1100), (1280, None)):
        page = chromium.new_page(viewport={"width": width, "height": 844})
        page.goto((tmp_path / "page.html").as_uri())
        boxes = [cell.bounding_box() for cell in page.locator("td").all()]
        assert all(box["x"] + box["width"] <= width for box in boxes)
        assert max(box["height"] for box in boxes) < 110
        assert page.inner_text(".reading") == "a reading <of it>"
        page.locator(".zoom").click(position={"x": 20, "y": 5})
        seen = page.locator("figure img").bounding_box()["width"]
        assert seen == enlarged if enlarged else seen <= 1160
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if width > 800:  # text is no wider than reads well, and stands in the middle
            text = page.locator("figcaption").bounding_box()
            assert text["width"] == 46 * 16
            assert text["x"] + text["width"] / 2 == pytest.approx(width / 2, abs=1)
        page.close()
