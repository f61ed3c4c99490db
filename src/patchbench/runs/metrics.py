"""The factors and the metrics by which runs are compared, and the one table of the meaning of each metric.

The name of a metric is <stage>/<quantity>, as in test/acc, or <stage>/<view>/<quantity>, as in test/canvas48/acc.
A line of METRICS gives the meaning of a quantity in every stage. To add a metric, log it and add its line here: the
terminal, scripts/runs.py, the pages of studies, the dashboard and W&B read this table. A metric without a line is
shown under its name as a plain number.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

FACTORS = ("embed", "patch", "pos", "data", "model", "augment", "optim", "seed")
STAGES = {"train": "training", "val": "validation", "test": "test"}  # the first word of a label
MORE, LESS, UNKNOWN = 1, -1, 0
Number = int | float


@dataclass(frozen=True)
class Metric:
    """The meaning of a metric, and the spelling of its values.

    unit: `%` for shares, which are stored between 0 and 1. better: MORE, LESS or UNKNOWN. curves: the stages of
    training in which the metric is logged repeatedly; W&B draws a panel for each. main: the stage in which the metric
    is a main metric, shown to readers who choose no columns.
    """

    label: str = ""
    unit: str = ""
    better: int = UNKNOWN
    curves: tuple[str, ...] = ()
    main: str = ""
    unit_of_change: str | None = None  # unit of a difference, if it differs from that of a value
    logarithm: bool = False  # to base 2: a difference is spelled as the ratio that it stands for

    @property
    def factor(self) -> int:
        """Factor from a stored value to the value that is shown."""
        return 100 if self.unit in ("%", "pt") else 1

    @property
    def change_unit(self) -> str:
        if self.unit_of_change is not None:
            return self.unit_of_change
        return "pt" if self.unit == "%" else self.unit

    @property
    def title(self) -> str:
        """The label with the unit, for an axis or a panel."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def number(self, x: Number, digits: int = 1) -> str:
        """Spell a value without its unit. digits: decimals of a share; other numbers have four significant digits."""
        if math.isnan(x):
            return "n/a"
        return f"{x * 100:.{digits}f}" if self.factor == 100 else four_digits(x)

    def value(self, x: Number, digits: int = 1) -> str:
        """Spell a value with its unit, for a sentence: 25.2 %."""
        return f"{self.number(x, digits)} {self.unit}".rstrip() if not math.isnan(x) else "n/a"

    def cell(self, x: Number) -> str:
        """Spell a value for a table with the metric in its header: 25.20%, or the number without its unit."""
        return f"{self.number(x, 2)}%" if self.unit == "%" and not math.isnan(x) else self.number(x, 2)

    def signed(self, x: Number) -> str:
        """Spell a difference without its unit; a difference of shares has one decimal, two below ten points."""
        if self.logarithm:
            return f"{2.0**x:.3g}"
        if self.factor != 100:
            return f"{'-' if x < 0 else '+'}{four_digits(abs(x))}"
        digits = 1 if abs(x) >= 0.1 else 2
        return f"{round(x * 100, digits) + 0.0:+.{digits}f}"

    def change(self, x: Number) -> str:
        """Spell a difference with its unit: +1.3 pt, 2.5 times."""
        return "n/a" if math.isnan(x) else f"{self.signed(x)} {self.change_unit}".rstrip()

    def clip(self, x: Number) -> Number:
        """Clip a value to the range of the metric: a share lies between 0 and 1."""
        return min(max(x, 0), 1) if self.unit == "%" else x


def four_digits(x: Number) -> str:
    """Spell a number with four significant digits; from a thousand on, rounded to a whole number with commas."""
    return f"{x:,.0f}" if abs(x) >= 1000 or float(x).is_integer() else f"{x:.4g}"


# By quantity: label, unit, direction that is better, stages with curves, stage of a main metric. The first line that
# matches counts; `*` stands for any letters. A line without a label gives the unit; the label is then the name.
METRICS = {
    "acc": Metric("accuracy", "%", MORE, curves=("val", "train"), main="test"),
    "acc_best": Metric("accuracy, best", "%", MORE, main="val"),
    "acc5": Metric("top-5 accuracy", "%", MORE, curves=("val",)),
    "acc_low": Metric("accuracy, low end of the 95 % interval", "%", MORE),
    "acc_high": Metric("accuracy, high end of the 95 % interval", "%", MORE),
    "same": Metric("same class as before", "%", MORE),
    "lost": Metric("correct before, wrong after", "%", LESS),
    "loss": Metric("loss", "", LESS, curves=("val", "train")),
    "grad_norm": Metric("gradient norm", curves=("train",)),
    "skipped_steps": Metric("skipped steps (gradient not finite)", "steps", LESS),
    "lr-*": Metric("learning rate"),
    "images": Metric("images"),
    "own_images": Metric("separate test images for this seed"),
    "right": Metric("correct answers"),
    "images_per_s": Metric("training speed", "images/s", MORE, curves=("throughput",), main="final"),
    "images_per_s_wall": Metric("training speed including pauses", "images/s", MORE),
    "images_per_s_per_gpu": Metric("training speed per device", "images/s", MORE),
    "tokens_per_s": Metric("training speed in tokens", "tokens/s", MORE, curves=("throughput",)),
    "ms_per_image": Metric("training time per image", "ms", LESS),
    "step_ms": Metric("time of a step", "ms", LESS, curves=("throughput",)),
    "step_ms_median": Metric("time of a step, median", "ms", LESS),
    "step_ms_p95": Metric("time of a step, 95th percentile", "ms", LESS),
    "data_wait_ms": Metric("waiting for data in a step", "ms", LESS, curves=("throughput",)),
    "data_wait_frac": Metric("share of the time spent waiting for data", "%", curves=("throughput",)),
    "tflops_per_gpu": Metric("computation per device", "TFLOP/s", MORE, curves=("throughput",)),
    "mfu": Metric("MFU, share of the bf16 peak", "%", MORE, curves=("throughput",)),
    "memory": Metric("peak memory", "GiB", LESS),  # of the GPU, or of the host if there is no GPU
    "gpu_peak_allocated_gib": Metric("peak GPU memory of tensors", "GiB", LESS, curves=("memory",)),
    "gpu_peak_reserved_gib": Metric("peak GPU memory of the allocator", "GiB", LESS, curves=("memory",)),
    "gpu_alloc_retries": Metric("GPU allocation retries", curves=("memory",)),
    "cpu_rss_gib": Metric("peak host memory", "GiB", LESS, curves=("memory",)),
    "tokens": Metric("tokens per image", "", LESS),
    "params": Metric("parameters", "", LESS),
    "params_m": Metric("parameters", "million", LESS),
    "gmacs": Metric("multiply-accumulates per image", "GMAC", LESS),
    "gmacs_per_step": Metric("additional multiply-accumulates per step", "GMAC", LESS),
    "gflops_fwd": Metric("forward computation per image", "GFLOP", LESS),
    "gflops_train": Metric("training computation per image", "GFLOP", LESS),
    "solved": Metric("seeds that solve the task", "%", MORE),
    "steps_to_solve": Metric("steps until the task is solved", "steps", LESS),
    "wall_s": Metric("wall time", "s", LESS, main="time"),
    "acc_*": Metric("", "%", MORE),
    "*_per_s": Metric("", "", MORE),
    "*_gib": Metric("", "GiB", LESS),
    "*_ms": Metric("", "ms", LESS),
    "*_ms_*": Metric("", "ms", LESS),
    "*_s": Metric("", "s", LESS),
    "*_frac": Metric("", "%"),
}


def metric(name: str) -> Metric:
    """Return the meaning of a name; that of a sum, `a - b`, or a logarithm, `log2(a)`, follows from its terms."""
    if name.startswith("log2("):
        return Metric(f"log2 of {metric(name[5:-1]).label}", unit_of_change="times", logarithm=True)
    if len(terms := re.split(r" [+-] ", name)) > 1:
        units = {metric(term).change_unit for term in terms}
        return Metric(name, units.pop() if len(units) == 1 else "")
    *before, quantity = name.split("/")
    line = METRICS.get(pattern(quantity), Metric())
    if not line.label:
        return replace(line, label=name)
    words = f"{STAGES[before[0]]} {line.label}" if before and before[0] in STAGES else line.label
    return replace(line, label=", ".join([words, *before[1:]]))


def pattern(quantity: str) -> str:
    """Return the key of METRICS that matches a quantity; empty if there is none."""
    return quantity if quantity in METRICS else next((key for key in METRICS if fnmatchcase(quantity, key)), "")


def sort_metrics(names: Iterable[str]) -> list[str]:
    """Sort names in the order of METRICS, names without a line last."""
    position = {key: i for i, key in enumerate([*METRICS, ""])}
    return sorted(names, key=lambda name: (position[pattern(name.rpartition("/")[2])], name))


def main_metrics() -> list[str]:
    """Names of the metrics that are shown to readers who choose no columns."""
    return [f"{line.main}/{quantity}" for quantity, line in METRICS.items() if line.main]


def curves(stage: str) -> list[str]:
    """Names of the metrics that are logged repeatedly in a stage of training."""
    return [f"{stage}/{quantity}" for quantity, line in METRICS.items() if stage in line.curves]


def summaries() -> dict[str, str]:
    """Return for each metric the statistic that the summary of a run in W&B shows beside the last value.

    Validation metrics: the best value, max or min. Rates: mean. Memory: max. The names contain no patterns, since W&B
    takes any one of several patterns that match.
    """
    best = {MORE: "max", LESS: "min"}
    validated = {name: best[metric(name).better] for name in curves("val") if metric(name).better}
    return validated | dict.fromkeys(curves("throughput"), "mean") | dict.fromkeys(curves("memory"), "max")
