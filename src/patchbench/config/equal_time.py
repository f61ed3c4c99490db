"""Equal training time of arms: seconds become optimizer steps, by speeds measured apart on an idle machine.

The wall time of the runs themselves is no measure: it depends on what else ran. scripts/costs.py measures, costs.csv
keeps the speeds beside the study, and so every machine gives the arms the same steps.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from patchbench.config.compose import composed
from patchbench.config.identity import compared
from patchbench.runs.sums import intact

FILE = "costs.csv"
COLUMNS = ["part", "arm", "round", "images_per_s", "step_ms", "memory", "tokens", "gmacs", "busy"]
COLUMNS += ["batch_size", "computation", "commit", "device"]
# step_ms: median; memory: GiB at the peak; gmacs: of an image, forward; busy: cores that other processes used
IDLE = 0.1  # cores that other processes may use while speed is measured
# Options and knobs whose numbers change what a network learns, and not what a step computes.
FREE = (
    *("seed", "epochs", "limit_batches", "tested", "budget", "data.unit", "data.eval_seed", "data.content"),
    *("data.train_size", "data.train_fraction", "data.val_size", "data.test_size"),
)
FREE_BELOW = ("budget.", "optim.", "data.scene.", "trainer.")
LATER = ("freeze", "model.layer_scale")  # knobs that speeds were measured without: at null they count for nothing


def read_costs(folder: Path, name: str = FILE) -> pd.DataFrame:
    """A row for each arm and round, with COLUMNS; empty where nobody measured. folder: of the study at its scale.

    ValueError where the file is not the one that was written.
    """
    path = folder / name
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    with intact(path):
        return pd.read_csv(path, dtype=dict.fromkeys(("part", "arm", "computation"), str), keep_default_na=False)


def computation(cfg: DictConfig, choices: Mapping[str, str]) -> str:
    """Eight hexadecimal digits, equal for arms whose steps compute the same: network, image size, batch, augmentation.

    cfg, choices: as in `compared`.
    """
    found = compared(cfg, choices)
    counted = {
        path: value
        for path, value in found.items()
        if path not in FREE and not path.startswith(FREE_BELOW) and not path.endswith(".std")
        if path not in LATER or value is not None
    }
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:8]


def at_equal_time(
    overrides: Sequence[str], seconds: float | int, costs: pd.DataFrame, *, study: str, scale: str, part: str, arm: str
) -> tuple[str, ...]:
    """Overrides of an arm that trains for so many seconds at its measured speed: budget=steps.

    An arm whose overrides name a budget keeps that, as one does at a scale that only shows that it runs.
    costs: see `read_costs`; the median over the rounds counts. ValueError where they lack this arm, or measured an
    arm of this name that computed something else.
    """
    if any(override.startswith("budget=") for override in overrides):
        return tuple(overrides)
    where = f"study {study}: part {part}, arm {arm}"
    cure = f"measure it on an idle machine, python scripts/costs.py {study} scale={scale}"
    if not seconds > 0:
        raise ValueError(f"{where}: seconds={seconds} must be above 0")
    rows = costs[(costs["part"] == part) & (costs["arm"] == arm)]
    if rows.empty:
        raise ValueError(f"{where}: seconds={seconds:g} needs the speed of this arm, which {FILE} lacks: {cure}")
    cfg = composed(overrides)
    if set(rows["computation"]) != {computation(cfg, cfg.hydra.runtime.choices)}:
        raise ValueError(f"{where}: {FILE} has the speed of another network or data set under this name: {cure}")
    steps = max(1, round(seconds * rows["images_per_s"].median() / cfg.batch_size))
    return (*overrides, "budget=steps", f"budget.value={steps}")
