"""Replication of studies on fresh seeds: predictions are frozen before, and one page lists the answers found again."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from patchbench.commands.report import at_its_best, holds_results, reports_on
from patchbench.config.options import EXPERIMENTS
from patchbench.config.plan import cells, folder_of, read_study, studies
from patchbench.config.tuning import is_tuned
from patchbench.machine import write_whole
from patchbench.pages.study import fresh
from patchbench.runs.committed import read_runs
from patchbench.runs.provenance import commit
from patchbench.study import frozen
from patchbench.study.design import Study

PAGE = "confirmation.md"
MADE_BY = "Made by `python scripts/confirm.py --table` from the files of the studies."


def repeatable(scale: str, experiments: Path = EXPERIMENTS) -> list[str]:
    """List the names of the studies in which this scale repeats another scale."""
    every = ((name, read_study(name, experiments)) for name in studies(experiments))
    return [name for name, study in every if scale in study.scales and study.scales[scale].like]


def ready(names: Sequence[str], scale: str, experiments: Path = EXPERIMENTS) -> list[str]:
    """List the studies that can be repeated; for each of the others, print the reason."""
    complete = []
    for name in names:
        try:
            settled(name, scale, experiments)
        except ValueError as error:
            print(f"left out: {error}")
        else:
            complete.append(name)
    return complete


def settled(name: str, scale: str, experiments: Path = EXPERIMENTS) -> Study:
    """Return a study with each arm at its chosen setting.

    ValueError unless its runs at the scale that `scale` repeats are complete, and made with the present study.yaml.
    """
    study = read_study(name, experiments)
    first = study.scales[scale].like
    folder = folder_of(name, first, Path("runs"), experiments)
    cure = f"python scripts/study.py {name} scale={first} comes first"
    if not holds_results(folder) or (study.grid and not is_tuned(study, first, folder)):
        raise ValueError(f"study {name}: it has no result yet that fresh seeds could repeat: {cure}")
    if study.as_recorded:
        raise ValueError(f"study {name}: its runs are not those of today's study.yaml, see as_recorded: {cure}")
    rows = read_runs(folder / "runs.csv")
    missing = len(cells(study, first, experiments)) - int((rows["status"] != "not run").sum())
    if missing > 0:
        raise ValueError(f"study {name}: {missing} of its runs at scale={first} are missing: {cure}")
    return at_its_best(study, first, folder)


def freeze(names: Sequence[str], scale: str, experiments: Path = EXPERIMENTS) -> Path:
    """Write the predictions of these studies, with today's date and the commit, and return the path of the file.

    ValueError, before anything is written, if a study already has runs on fresh seeds, and one of its statements is not
    as it was frozen.
    """
    rows = frozen.read(experiments)
    today = datetime.now(UTC).date().isoformat()
    for name in names:
        study = settled(name, scale, experiments)
        folder = folder_of(name, scale, Path("runs"), experiments)
        if holds_results(folder) and (bent := frozen.changed(study, scale, rows)):
            raise ValueError(
                f"study {name}: {bent[0]} is not what was frozen, and {folder / 'runs.csv'} already has its fresh "
                f"seeds: remove {folder} and give other seeds in study.yaml, since these are known"
            )
        rows = frozen.freeze(study, scale, rows, today, commit() or "")
    write_whole(experiments / frozen.FILE, rows.to_csv(index=False, lineterminator="\n"))
    return experiments / frozen.FILE


def check_frozen(names: Sequence[str], scale: str, experiments: Path = EXPERIMENTS) -> None:
    """Raise ValueError unless every statement of these studies is frozen as it is now."""
    rows = frozen.read(experiments)
    for name in names:
        if changed := frozen.changed(settled(name, scale, experiments), scale, rows):
            raise ValueError(
                f"study {name}: {changed[0]} is not frozen as it is today, so fresh seeds would confirm nothing: "
                "python scripts/confirm.py --freeze, and commit the file, before they are run"
            )


def confirmation(scale: str, experiments: Path = EXPERIMENTS) -> Path:
    """Write the page over all repeated studies, from the files in their folders, and return its path."""
    rows, repeated = frozen.read(experiments), []
    for name in repeatable(scale, experiments):
        study = read_study(name, experiments)
        first = study.scales[scale].like
        for report, links in reports_on(name, experiments, first):
            if report.fresh is None or report.fresh.scale != scale:
                continue
            bent = frozen.changed(report.study, scale, rows)
            mine = rows[(rows["study"] == name) & ~rows["statement"].isin(bent)]
            dates = dict(zip(mine["statement"], mine["date"], strict=True))
            judged = report.judgement, report.fresh.judgement
            repeated.append(fresh.Replication(study, *judged, links["report"], report.fresh.seeds, dates))
    path = experiments / PAGE
    write_whole(path, f"# Found again on fresh seeds\n\n{MADE_BY}\n\n{fresh.page(repeated)}")
    return path
