"""A ladder of budgets: whether the last rung still gains."""

from patchbench.study.amounts import Difference, difference
from patchbench.study.inference import Values


def plateau(before: Values, last: Values, margin: float) -> tuple[str, Difference]:
    """Decide if the seeds of the last rung gain less than the margin over those of the rung before, and give the gain.

    The answer is "reached" where the whole 95 % interval of the gain lies below the margin, "rising" where it lies
    above, else "open". The results grow as training gets better: turn the sign of a loss.
    """
    gain = difference(last, before)
    low, high = gain.interval()
    return "reached" if high < margin else "rising" if low > margin else "open", gain
