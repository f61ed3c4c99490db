"""The look of the pages that this project writes: HTML without a reference to anything outside of it."""

import base64
import io
from collections.abc import Sequence
from html import escape

from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --ink: #1d2327; --soft: #5a6570; --line: #d9dee3; --back: #ffffff; --card: #f6f7f9;
        --mark: #0072b2; --marked: #dcedf8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #a3adb6; --line: #39424a; --back: #15191d;
        --card: #1e242a; --mark: #56b4e9; --marked: #16364a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 1160px; background: var(--back); color: var(--ink);
       font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .6rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.08rem; margin: 1.8rem 0 .4rem; }
p { max-width: 46rem; margin: .6rem 0; }
.soft { color: var(--soft); }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .9em; }
pre { background: var(--card); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; }
figure { margin: 1.2rem 0 1.6rem; }
figure img { display: block; width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
             border-radius: 6px; padding: 8px; }
figcaption { max-width: 46rem; margin-top: .5rem; color: var(--soft); font-size: .95rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .34rem 1.1rem .34rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); }
td.number, th.number { text-align: right; white-space: nowrap; }
"""


def document(title: str, body: str, style: str = "") -> str:
    """A whole page; `title` as HTML, `style` after that of all pages."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def shown(picture: Figure | bytes, alt: str, caption: str) -> str:
    """A figure, or its PNG, as part of the page; `alt` for those who do not see it."""
    data = base64.b64encode(png(picture) if isinstance(picture, Figure) else picture).decode()
    return (
        f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def rows(header: Sequence[str], body: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    """A table; columns `numbers` are set to the right."""

    def cells(row: Sequence[str], tag: str) -> str:
        classes = [' class="number"' if i in numbers else "" for i in range(len(row))]
        return "<tr>" + "".join(f"<{tag}{c}>{v}</{tag}>" for c, v in zip(classes, row, strict=True)) + "</tr>"

    lines = [cells(header, "th"), *(cells(row, "td") for row in body)]
    return '<div class="scroll"><table>\n' + "\n".join(lines) + "\n</table></div>"
