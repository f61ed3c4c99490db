"""Tables and pictures as Markdown."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from patchbench.pages.study.figures import svg
from patchbench.pages.study.numbers import Report


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return a table as Markdown. right: numbers of the columns that are aligned to the right."""
    rule = ["---:" if i in right else "---" for i in range(len(header))]
    clean = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, rule, *rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in clean)


def picture(report: Report, name: str, drawing: Figure, alt: str, caption: str) -> str:
    """Store a picture in `report.pictures`, and return the reference to it with its caption."""
    report.pictures[f"{name}.svg"] = svg(drawing)
    return f"![{alt}]({name}.svg)\n\n*{caption.strip()}*"  # Markdown closes no emphasis after a space
