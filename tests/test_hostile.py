"""Names that look like HTML, in folders, records, logs and rows: all pages show them as text and run nothing."""

import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from omegaconf import open_dict
from PIL import Image
from support import configure, train_in
from test_dashboard import chromium, in_browser  # noqa: F401

from patchbench.commands.explain import explain
from patchbench.commands.report import report_sweep
from patchbench.pages.dashboard.page import write
from patchbench.runs.record import to_json

SCRIPT = "<script>alert(7)</script>"
HANDLER = "<img src=x onerror=alert({})>"  # without a slash: as a name of a folder
CLOSES = '"><svg onload=alert({})>'
MARKDOWN = "![x](http://127.0.0.1:9/a.png)[y](javascript:alert(8))`"
pytestmark = pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # for names as long as these
CLASSES = [HANDLER.format(1), CLOSES.format(2)]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages about a real run on class folders with hostile names, and about copies of its record."""
    here = tmp_path_factory.mktemp("hostile")
    data, runs = here / "a<b onload=alert(3)>", here / "runs"
    for split, count in {"train": 12, "val": 6}.items():
        for i, name in enumerate(CLASSES):
            (data / split / name).mkdir(parents=True)
            for n in range(count):
                Image.new("RGB", (16, 16), (250 * i, 40 * (n % 5), 90)).save(data / split / name / f"{n}.png")
    root = str(data).replace("\\", "\\\\")
    options = ["model=micro", "data=imagefolder", "data.img_size=16", "patch=4", f'data.root="{root}"']
    short = ["epochs=2", "batch_size=8", "limit_batches=2", "log_every=1", "trainer=cpu", "logger=csv"]
    run = runs / f"{HANDLER.format(4)}_00000000"
    train_in(configure(*options, *short, "analyze=true", "logger.tables=true"), run)
    done = json.loads((run / "run.json").read_text())
    for i, name in enumerate((SCRIPT, HANDLER.format(5), CLOSES.format(6), MARKDOWN)):
        copy = runs / f"copy_{i:08x}"
        copy.mkdir()
        done |= {"identity": f"{i:08x}", "name": name}
        done["factors"] |= {"embed": name, "data": SCRIPT, "seed": i % 2}
        done["config"] |= {name: name}
        done["compared"] |= {f"optim.{name}": name}
        done["result"] |= {f"test/{name}": 0.5, "model/grid": name}
        done["environment"] |= {"commit": name, "versions": {name: name}}
        done["environment"]["machine"] |= {"cpu": name}
        (copy / "run.json").write_text(to_json(done))
        rows = [f'{step},"{name.replace(chr(34), chr(34) * 2)}",{step}.5' for step in (1, 2, 3)]
        (copy / "metrics.csv").write_text("\n".join(["step,name,value", *rows, ""]))
        failed = runs / f"failed-{i}_{i + 16:08x}"
        failed.mkdir()
        (failed / "log.txt").write_text(f"{name}\nValueError: {name}\n")
    cfg = configure(*options, f"runs_dir={here / 'explained'}", command="explain")
    with open_dict(cfg):
        choices = dict(cfg.pop("hydra").runtime.choices)
    return {
        "dashboard": write(runs, None)[0],
        "report": report_sweep(runs, {}),
        "analysis": run / "analysis.html",
        "explain": explain(cfg, choices, options),
    }


class Elements(HTMLParser):
    """The elements of a page: names of event handlers, addresses, and texts of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        self.handlers += [f"{tag} {name}" for name, _ in attributes if name.startswith("on")]
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "action", "srcdoc")]

    def handle_data(self, text: str) -> None:
        if self.inside == "script":
            self.scripts.append(text)

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dashboard", "report", "analysis", "explain"])
def test_names_add_no_elements_to_a_page(pages, name):
    text = pages[name].read_text(encoding="utf-8")
    found = Elements(text)
    assert found.handlers == []
    allowed = ("data:image/", "#", "https://")
    assert [each[:60] for each in found.addresses if not each.startswith(allowed)] == []
    assert not [each for each in found.addresses if "127.0.0.1" in each]
    if name == "dashboard":
        assert "<img src=x" not in text.replace("\\u003c", "")
    else:
        assert found.scripts == []
    assert "alert(" in text, "the names are on the page"


@pytest.fixture
def watched(chromium: Any) -> Iterator[tuple[Any, list[str]]]:  # noqa: F811
    """A page of a browser, and a list of events that must not happen on it."""
    page, happened = chromium.new_page(viewport={"width": 1400, "height": 900}), []
    page.set_default_timeout(20_000)
    page.on("dialog", lambda dialog: (happened.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("pageerror", lambda error: happened.append(str(error)))
    page.on("request", lambda request: happened.append(request.url) if request.url.startswith("http") else None)
    yield page, happened
    page.close()


@pytest.mark.promise(
    "names of folders, records and logs are HTML or scripts",
    "No page runs or fetches anything, in Chromium",
)
@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("name", ["dashboard", "report", "analysis", "explain"])
def test_no_script_of_a_name_runs_in_a_browser(pages, watched, name):
    page, happened = watched
    page.goto(pages[name].resolve().as_uri())
    if name == "dashboard":
        page.wait_for_function("document.documentElement.dataset.ready")
        runs = sorted(path.name for path in pages["dashboard"].parent.glob("*_????????"))
        assert len(runs) == 9
        for run in runs:
            page.evaluate("run => { location.hash = '#run=' + encodeURIComponent(run) }", run)
            assert page.inner_text("#run h1") == run
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelectorAll('[onerror], [onload]').length") == 0
    assert happened == []


@pytest.mark.slow
def test_the_pages_are_those_that_are_tested(pages, tmp_path):
    """The pages contain the hostile names, so an unescaped name would be noticed."""
    copy = Path(shutil.copy(pages["analysis"], tmp_path / "page.html"))
    copy.write_text(copy.read_text().replace("</body>", f"{HANDLER.format(9)}{SCRIPT}</body>"))
    found = Elements(copy.read_text())
    assert found.handlers == ["img onerror"]
    assert found.scripts == ["alert(7)"]
