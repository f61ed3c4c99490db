"""Tables and pictures as Markdown."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from patchbench.pages.study.figures import svg
from patchbench.pages.study.numbers import Report


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """right: the columns that are set to the right, as numbers are."""
    rule = ["---:" if i in right else "---" for i in range(len(header))]
    clean = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, rule, *rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in clean)


def picture(report: Report, name: str, drawing: Figure, alt: str, caption: str) -> str:
    """Keep the picture in `report.pictures`, and refer to it."""
    report.pictures[f"{name}.svg"] = svg(drawing)
    return f"![{alt}]({name}.svg)\n\n*{caption.strip()}*"  # Markdown closes no emphasis after a space
