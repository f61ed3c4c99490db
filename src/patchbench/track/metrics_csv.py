"""The logger of metrics.csv, a file with all metrics of a run, which is complete up to the last step after a kill."""

import csv
from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from patchbench.machine import path_in_errors
from patchbench.runs.rows import repair


class MetricsCsv(Logger):
    """Append one line per value, `step,name,value`: a killed run keeps its rows, a resumed run continues the file.

    Lightning's own CSVLogger starts a new file when a run resumes. Lines that a kill or a full disk has cut off are
    removed before the first row is written. A resumed run may repeat rows; the later row counts:
    `pandas.read_csv(path).pivot_table(index="step", columns="name", values="value", aggfunc="last")`.
    """

    name = version = None

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.repaired = path, False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self.repaired:
            repair(self.path)
            self.repaired = True
        with path_in_errors(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([step, name, float(value)] for name, value in metrics.items())

    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        """Do nothing: run.json contains the hyperparameters."""
