"""Predictions of a study, frozen before it is repeated on fresh seeds: a row for each statement, with a digest.

The digest is of all that could be bent afterwards: the sentence, its arms with every option and chosen setting, the
bound, the budget, what was predicted. So a statement that was changed after its repetition began is found.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from patchbench.study.design import Part, Statement, Study

FILE = "frozen.csv"  # in the folder of the studies
COLUMNS = ["study", "statement", "predicted", "date", "commit", "digest"]


def digest(study: Study, scale: str, part: Part, statement: Statement) -> str:
    """Twelve hexadecimal digits of a statement with its arms and seeds. study: every arm at its chosen setting."""
    frozen = asdict(statement) | {
        "overrides": [study.overrides, study.scales[scale].overrides, part.overrides, part.scales.get(scale, ())],
        "seeds": part.seeds.get(scale, study.scales[scale].seeds),
        "arms": {arm: part.arms[arm] for arm in statement.arms},
        "ladder": asdict(part.ladder) if part.ladder else None,
        "rule": [part.metric, part.chance, part.solved, part.plateau],
        "claims": sorted(other.name for _, other in stated(study, scale) if other.role == "claim"),  # Holm counts them
    }
    return hashlib.sha256(json.dumps(frozen, sort_keys=True).encode()).hexdigest()[:12]


def stated(study: Study, scale: str) -> list[tuple[Part, Statement]]:
    """The statements that are decided at a scale."""
    return [(part, each) for part, each in study.statements if scale in part.only and not each.withdrawn]


def digests(study: Study, scale: str) -> dict[str, str]:
    """The digest of every statement by its name."""
    return {each.name: digest(study, scale, part, each) for part, each in stated(study, scale)}


def read(experiments: Path) -> pd.DataFrame:
    """The rows of FILE; none where nothing was frozen."""
    path = experiments / FILE
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def changed(study: Study, scale: str, rows: pd.DataFrame) -> list[str]:
    """Names of the statements that are not frozen, or are others today than they were then."""
    then = rows[rows["study"] == study.name].set_index("statement")["digest"]
    return [name for name, now in digests(study, scale).items() if then.get(name) != now]


def freeze(study: Study, scale: str, rows: pd.DataFrame, date: str, commit: str) -> pd.DataFrame:
    """The rows with those of `study` as they are now. A statement that is unchanged keeps its date and its commit."""
    mine = rows["study"] == study.name
    old = {row["digest"]: row for row in rows[mine].to_dict("records")}
    predicted = {each.name: each.predicted for _, each in stated(study, scale)}
    new = [
        old.get(now) or dict(zip(COLUMNS, (study.name, name, predicted[name], date, commit, now), strict=True))
        for name, now in digests(study, scale).items()
    ]
    table = pd.concat([rows[~mine], pd.DataFrame(new, columns=COLUMNS)], ignore_index=True)
    return table.sort_values("study", kind="stable", ignore_index=True)
