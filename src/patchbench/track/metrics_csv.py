"""Every metric on the local disk, whatever becomes of the run."""

import csv
from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only


class MetricsCsv(Logger):
    """One line per value, `step,name,value`, appended and flushed: a killed run keeps its rows, a resumed one goes on.

    Lightning's own CSVLogger starts the file anew when a run resumes. Rows that a resumed run repeats come later and
    count: `pandas.read_csv(path).pivot_table(index="step", columns="name", values="value", aggfunc="last")`.
    """

    name = version = None

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        fresh = not self.path.exists()
        with self.path.open("a", newline="") as file:
            rows = csv.writer(file)
            if fresh:
                rows.writerow(["step", "name", "value"])
            rows.writerows([step, name, float(value)] for name, value in metrics.items())

    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        """run.json has them."""
