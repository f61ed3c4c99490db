"""Equal training time of arms: seconds are converted to optimizer steps, with speeds measured on an idle machine.

The wall time of the runs themselves is not used, since it depends on other processes. scripts/costs.py measures the
speeds and writes them to costs.csv in the folder of the study, so that every machine trains the arms for equal steps.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from patchbench.config.compose import composed
from patchbench.config.identity import compared
from patchbench.runs.sums import verified_file

FILE = "costs.csv"
COLUMNS = ["part", "arm", "round", "images_per_s", "step_ms", "memory", "tokens", "gmacs", "busy"]
COLUMNS += ["batch_size", "computation", "commit", "device"]
# step_ms: median; memory: GiB at the peak; gmacs: per image, forward; busy: cores that other processes used
IDLE = 0.1  # cores that other processes may use while speed is measured
# Options and knobs that change the result of training, but not the computation of a step.
IRRELEVANT = (
    *("seed", "epochs", "limit_batches", "tested", "budget", "data.unit", "data.eval_seed", "data.content"),
    *("data.train_size", "data.train_fraction", "data.val_size", "data.test_size"),
)
IRRELEVANT_PREFIXES = ("budget.", "optim.", "data.scene.", "trainer.")
LATER = ("freeze", "model.layer_scale")  # options that came after speeds were measured: null does not count


def read_costs(folder: Path, name: str = FILE) -> pd.DataFrame:
    """Read the costs: a row for each arm and round, with COLUMNS; empty if nothing was measured.

    folder: folder of the study at its scale. ValueError if the file was altered.
    """
    path = folder / name
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    with verified_file(path):
        return pd.read_csv(path, dtype=dict.fromkeys(("part", "arm", "computation"), str), keep_default_na=False)


def computation(cfg: DictConfig, choices: Mapping[str, str]) -> str:
    """Return eight hexadecimal digits that are equal for arms whose steps compute the same.

    They depend on network, image size, batch size and augmentation. cfg, choices: see `compared`.
    """
    knobs = compared(cfg, choices)
    counted = {
        path: value
        for path, value in knobs.items()
        if path not in IRRELEVANT and not path.startswith(IRRELEVANT_PREFIXES) and not path.endswith(".std")
        if path not in LATER or value is not None
    }
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:8]


def at_equal_time(
    overrides: Sequence[str], seconds: float | int, costs: pd.DataFrame, *, study: str, scale: str, part: str, arm: str
) -> tuple[str, ...]:
    """Add budget=steps to the overrides of an arm, for as many steps as take `seconds` at its measured speed.

    Overrides that contain a budget are returned unchanged, for example at the scale `smoke`.
    costs: see `read_costs`; the median over the rounds counts. ValueError if this arm was not measured, or if the
    measured arm of this name had another computation.
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
