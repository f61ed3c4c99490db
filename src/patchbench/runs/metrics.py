"""How values of a metric are written: accuracies in per cent, their differences in points, anything else as it is."""

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    factor: int
    level: str  # sign of a value
    difference: str  # sign of a difference

    def value(self, x: float, digits: int = 1) -> str:
        return "n/a" if math.isnan(x) else f"{self.number(x, digits)}{self.level}"

    def number(self, x: float, digits: int = 1) -> str:
        return f"{x * self.factor:.{digits}f}" if self.factor == 100 else f"{x:.4g}"

    def change(self, x: float) -> str:
        return "n/a" if math.isnan(x) else f"{self.signed(x)}{self.difference}"

    def signed(self, x: float) -> str:
        if self.factor != 100:
            return f"{x:+.4g}"
        digits = 1 if abs(x) >= 0.1 else 2
        return f"{round(x * 100, digits) + 0.0:+.{digits}f}"


def unit(metric: str) -> Unit:
    if metric.startswith("log2("):
        return Unit(1, "", " doublings")
    accuracy = all(re.search(r"acc|same$|macro", name) for name in re.split(r" [+-] ", metric))
    return Unit(100, " %", " pt") if accuracy else Unit(1, "", "")


UNITS = {
    r"_gib$": "GiB",
    r"images_per_s(_per_gpu)?$": "images/s",
    r"tokens_per_s$": "tokens/s",
    r"_ms(_|$)": "ms",
    r"_s$": "s",
    r"tflops_per_gpu$": "TFLOP/s",
    r"gflops_\w+$": "GFLOP",
    r"gmacs$": "GMAC",
    r"params_m$": "million",
}


SHARE = re.compile(r"_frac$|/mfu$")  # of one, beside what study.units knows


MORE_IS_BETTER = re.compile(r"acc|same$|macro|_per_s|tflops_per_gpu$|mfu$")


LESS_IS_BETTER = re.compile(r"loss$|_gib$|_ms(_|$)|_s$|^model/(tokens|params|params_m|gmacs|gflops_\w+)$")


def sign(name: str) -> tuple[int, str]:
    """What a value is multiplied by to be read, and its unit."""
    if unit(name).factor == 100 or SHARE.search(name):
        return 100, "%"
    return 1, next((sign for pattern, sign in UNITS.items() if re.search(pattern, name)), "")


def better(name: str) -> int:
    """1 where more is better, -1 where less is, 0 where neither is known."""
    if LESS_IS_BETTER.search(name) and not name.endswith("_per_s"):
        return -1
    return 1 if MORE_IS_BETTER.search(name) else 0


# A row, and how the figures of the record make it; it is left out where one of them is not there. Of two with one
# label the later one counts, unless it is left out: a CNN has no tokens.
ROWS = (
    (
        "test accuracy",
        "{test/acc:.2%}, 95 % interval {test/acc_low:.1%} to {test/acc_high:.1%}, {test/images:,} images",
    ),
    ("validation accuracy", "{val/acc_best:.2%}  at best"),
    ("throughput", "{final/images_per_s:,.0f} images/s"),
    ("throughput", "{final/images_per_s:,.0f} images/s, {final/tokens_per_s:,.0f} tokens/s"),
    ("step time", "{final/step_ms_median:.1f} ms median, {final/step_ms_p95:.1f} ms p95"),
    ("waiting for data", "{final/data_wait_frac:.1%} of the time"),
    ("compute", "{final/tflops_per_gpu:.3g} TFLOP/s per device"),
    ("MFU", "{final/mfu:.1%} of the bf16 peak"),
    ("GPU memory, peak", "{final/gpu_peak_allocated_gib:.2f} GiB, {final/gpu_peak_reserved_gib:.2f} GiB reserved"),
    ("memory, peak", "{final/cpu_rss_gib:.2f} GiB resident"),
    ("network", "{model/params:,} parameters, {model/gmacs:.4g} GMACs per image"),
    ("input stage", "{model/grid} patches, {model/tokens:,} tokens"),
    ("wall time", "{time/wall_s:.0f} s"),
)
