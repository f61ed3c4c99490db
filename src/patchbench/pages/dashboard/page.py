"""The dashboard: a folder of runs as one HTML file that needs no server and no network connection.

The file contains plotly.js, which draws the plots, and DataTables, as packaged by itables.
"""

import base64
import json
from html import escape
from importlib.resources import files
from pathlib import Path

import itables
from plotly.offline import get_plotlyjs

from patchbench import html
from patchbench.machine import whole_file
from patchbench.pages.dashboard.gather import gather
from patchbench.pages.dashboard.plain import script_json

MODULES = ("runs", "plots", "details", "board")  # modules of JavaScript; the last is the main module


def write(runs_dir: Path, out: Path | None) -> tuple[Path, int]:
    """Write the page about all runs in a folder; return its path and the number of runs.

    out: file to write; None: dashboard.html in the folder. FileNotFoundError if there are no runs, ValueError if `out`
    is a folder.
    """
    path = out or runs_dir / "dashboard.html"
    if path.is_dir():
        raise ValueError(f"out={path} is a folder: give the file to write, out={path / 'dashboard.html'}")
    data = gather(runs_dir, path)
    with whole_file(path) as file:
        file.write(page(data))
    return path, len(data["runs"])


def page(data: dict) -> str:
    """Return the page as HTML. data: see `gather`."""
    folder = files("patchbench.pages.dashboard")
    bundle = Path(itables.__file__).parent / "html"
    sources = {"datatables": (bundle / "dt_bundle.js").read_text(encoding="utf-8")}
    sources |= {name: (folder / f"{name}.js").read_text(encoding="utf-8") for name in MODULES}
    modules = {name: url(name, text) for name, text in sources.items()}
    body = [
        (folder / "board.html").read_text(encoding="utf-8").replace("TITLE", escape(data["title"])),
        f'<script type="application/json" id="data">{script_json(data)}</script>',
        f"<script>{get_plotlyjs()}</script>",
        f'<script type="importmap">{json.dumps({"imports": modules})}</script>',
        f'<script type="module">import "{MODULES[-1]}";</script>',
    ]
    style = (bundle / "dt_bundle.css").read_text(encoding="utf-8") + (folder / "board.css").read_text(encoding="utf-8")
    return html.document(f"{escape(data['title'])}: runs", "\n".join(body), style)


def url(name: str, source: str) -> str:
    """Return a module as a data URL: browsers load no module from a file on the disk."""
    source += f"\n//# sourceURL={name}.js\n"
    return "data:text/javascript;base64," + base64.b64encode(source.encode()).decode()
