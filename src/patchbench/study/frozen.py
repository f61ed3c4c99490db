"""Predictions of a study, frozen before it is repeated on fresh seeds: one row per statement, with a digest.

The digest covers all that could be changed afterwards: the sentence, its arms with all options and tuned settings, the
bound, the budget, the prediction. So a statement that was changed after its repetition began is detected.
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
    """Return the digest of a statement with its arms and seeds, 12 hexadecimal digits. study: with tuned settings."""
    frozen = asdict(statement) | {
        "overrides": [study.overrides, study.scales[scale].overrides, part.overrides, part.scales.get(scale, ())],
        "seeds": part.seeds.get(scale, study.scales[scale].seeds),
        "arms": {arm: part.arms[arm] for arm in statement.arms},
        "ladder": asdict(part.ladder) if part.ladder else None,
        "rule": [part.metric, part.chance, part.solved, part.plateau],
        "claims": sorted(
            other.name for _, other in decided_statements(study, scale) if other.role == "claim"
        ),  # Holm counts them
    }
    return hashlib.sha256(json.dumps(frozen, sort_keys=True).encode()).hexdigest()[:12]


def decided_statements(study: Study, scale: str) -> list[tuple[Part, Statement]]:
    """List the statements that are decided at a scale, with their parts."""
    return [(part, each) for part, each in study.statements if scale in part.only and not each.withdrawn]


def digests(study: Study, scale: str) -> dict[str, str]:
    """Return the digests of the statements that are decided at a scale, by name."""
    return {each.name: digest(study, scale, part, each) for part, each in decided_statements(study, scale)}


def read(experiments: Path) -> pd.DataFrame:
    """Read the rows of FILE; empty if nothing was frozen."""
    path = experiments / FILE
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def changed(study: Study, scale: str, rows: pd.DataFrame) -> list[str]:
    """List the names of the statements that are not frozen, or have changed since they were frozen."""
    frozen = rows[rows["study"] == study.name].set_index("statement")["digest"]
    return [name for name, now in digests(study, scale).items() if frozen.get(name) != now]


def freeze(study: Study, scale: str, rows: pd.DataFrame, date: str, commit: str) -> pd.DataFrame:
    """Return the rows with the current statements of `study`; unchanged statements keep their date and commit."""
    of_study = rows["study"] == study.name
    old = {row["digest"]: row for row in rows[of_study].to_dict("records")}
    predicted = {each.name: each.predicted for _, each in decided_statements(study, scale)}
    new = [
        old.get(now) or dict(zip(COLUMNS, (study.name, name, predicted[name], date, commit, now), strict=True))
        for name, now in digests(study, scale).items()
    ]
    table = pd.concat([rows[~of_study], pd.DataFrame(new, columns=COLUMNS)], ignore_index=True)
    return table.sort_values("study", kind="stable", ignore_index=True)
