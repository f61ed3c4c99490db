"""HTML pages that contain all that they need: style, figures, tables; they refer to no other file."""

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
p { margin: .6rem 0; }
.soft { color: var(--soft); }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .9em;
       overflow-wrap: anywhere; }
pre { background: var(--card); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; }
pre code { overflow-wrap: normal; }
figure { margin: 1.2rem 0 1.6rem; }
figure img { display: block; width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
             border-radius: 6px; padding: 8px; }
figcaption { margin-top: .5rem; color: var(--soft); font-size: .95rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .34rem 1.1rem .34rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); }
td.number, th.number { text-align: right; white-space: nowrap; }
td code { overflow-wrap: break-word; } /* a column is as wide as its longest word */
"""
# Text in a column of a length that reads well, in the middle of the window; figures and tables may be wider.
ARTICLE = """
h1, h2, h3, p, ul, pre, blockquote, details, figcaption { max-width: 46rem; margin-left: auto; margin-right: auto; }
.scroll { max-width: max-content; margin: 0 auto; }
.reading { margin-top: .7rem; padding-left: .8rem; border-left: 4px solid var(--mark); }
.zoom { display: block; overflow-x: auto; position: relative; }
.zoom input { position: absolute; opacity: 0; }
summary { cursor: pointer; }
@media (max-width: 800px) {
  body { padding: 1.2rem 1rem 3rem; }
  .scroll table:not(.steps) td + td:not(.number, [style*="right"]) { min-width: 9rem; }
  h1 { font-size: 1.5rem; }
  .zoom input:checked + * { width: 1100px; max-width: none; }
  .zoom:focus-within { outline: 2px solid var(--mark); }
  .zoom::after { content: "tap to enlarge"; display: block; position: sticky; left: 0; width: max-content;
                 color: var(--mark); font-size: .85rem; }
  .zoom:has(:checked)::after { content: "swipe to see the rest, tap to see it whole"; }
  table.steps, table.steps tbody { display: block; }
  table.steps tr { display: flex; flex-wrap: wrap; column-gap: 1rem; border-bottom: 1px solid var(--line);
                   padding: .4rem 0; }
  table.steps tr:first-child { display: none; }
  table.steps td { border: 0; padding: 0; }
  table.steps td:first-child { font-weight: 600; flex: 1 0 100%; }
  table.steps td:last-child { flex: 1 0 100%; color: var(--soft); }
  table.steps td.values:not(:empty)::before { content: "= "; }
  table.steps td.values:not(:empty)::after { content: " values"; }
}
"""


def article(title: str, body: str, style: str = "") -> str:
    """Return a whole page that is read from top to bottom. title: HTML. style: CSS in addition to ARTICLE."""
    return document(title, body, ARTICLE + style)


def document(title: str, body: str, style: str = "") -> str:
    """Return a whole page. title: HTML. style: CSS in addition to STYLE."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def figure_html(picture: Figure | bytes, alt: str, caption: str, reading: str = "") -> str:
    """Return a figure, or its PNG, as part of an article. A tap enlarges it on a phone: browsers do not open a data URL
    as a page.

    alt: description for readers who do not see the figure. caption: description of the drawing, as HTML.
    reading: result that the figure shows here, as text.
    """
    encoded = base64.b64encode(png(picture) if isinstance(picture, Figure) else picture).decode()
    reading_html = f'<p class="reading">{escape(reading)}</p>' if reading else ""
    return (
        f'<figure>{zoomable(f"""<img alt="{escape(alt)}" src="data:image/png;base64,{encoded}">""")}'
        f"{reading_html}<figcaption>{caption}</figcaption></figure>"
    )


def zoomable(image: str) -> str:
    """Wrap an element `img` or `svg`: on a narrow screen a tap, or the space bar, enlarges it and shrinks it again."""
    return f'<label class="zoom"><input type="checkbox" aria-label="enlarge the figure">{image}</label>'


def table_html(header: Sequence[str], body: Sequence[Sequence[str]], numbers: Sequence[int], kind: str = "") -> str:
    """Return a table. numbers: columns that are aligned to the right.

    kind: `steps` for a table of name, shape, number of values and note; its rows become blocks on a narrow screen.
    """

    def cells(row: Sequence[str], tag: str) -> str:
        classes = [["number"] if i in numbers else [] for i in range(len(row))]
        if kind == "steps":
            classes[2].append("values")
        opened = [f'<{tag} class="{" ".join(c)}">' if c else f"<{tag}>" for c in classes]
        return "<tr>" + "".join(f"{start}{v}</{tag}>" for start, v in zip(opened, row, strict=True)) + "</tr>"

    lines = [cells(header, "th"), *(cells(row, "td") for row in body)]
    table = f'<table class="{kind}">' if kind else "<table>"
    return f'<div class="scroll">{table}\n' + "\n".join(lines) + "\n</table></div>"
