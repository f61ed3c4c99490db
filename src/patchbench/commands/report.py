"""Pages about a study, about any folder of runs, and about all studies together, from the records of runs."""

import shlex
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from patchbench.config.equal_time import FILE as COSTS
from patchbench.config.equal_time import read_costs
from patchbench.config.options import EXPERIMENTS
from patchbench.config.plan import (
    cells,
    folder_of,
    identities,
    parts_at,
    plan_of,
    read_study,
    settings_folder,
    studies,
)
from patchbench.config.tuning import FILE, best, read_tuned
from patchbench.machine import write_whole
from patchbench.pages.study import effects, page
from patchbench.pages.study.numbers import Fresh, Report, train_gflops
from patchbench.pages.study.predictions import errata, predictions
from patchbench.pages.study.statements import summary
from patchbench.runs.browse import filter_rows
from patchbench.runs.committed import POINTS, RUNS, curve_points, merged, read_curves, read_hits, read_runs, write_files
from patchbench.runs.metrics import FACTORS
from patchbench.runs.records import KEYS, load
from patchbench.study.design import Part, Statement, Study
from patchbench.study.outcomes import Evidence
from patchbench.study.verdict import judge

MADE_BY = "Made by `python scripts/report.py --all` from the files of the studies."
VARIED = tuple(name for name in FACTORS if name not in ("data", "seed"))  # factors of arms; each data set is a part


def report_study(
    name: str,
    runs_dir: Path,
    scale: str | None = None,
    *,
    tuned: bool = True,
    experiments: Path = EXPERIMENTS,
    show: bool = False,
) -> Path:
    """Write runs.csv, curves.csv, hits.npz, README.md with its figures, and report.html, whose path is returned.

    For a study of costs, only the pages are written. scale: None: the scale with the most runs. tuned: false: the runs
    have the settings of study.yaml; otherwise those that tuning chose, if it has chosen any. Runs in the files of the
    study count even if `runs_dir` does not contain them. show: print the answers. ValueError or OSError, in one line,
    if no report can be made.
    """
    study = read_study(name, experiments)
    folders = {each: folder_of(name, each, runs_dir, experiments) for each in study.scales}
    records = records_of(runs_dir, [folders[scale]] if scale in folders else list(folders.values()))
    identities_by_scale = {each: set(merged(records, folder)["identity"].dropna()) for each, folder in folders.items()}
    scale = scale or likely_scale(study, identities_by_scale, experiments)
    folder = folders.get(scale) or folder_of(name, scale, runs_dir, experiments)
    if study.of_costs:
        if not (folder / COSTS).exists():
            raise ValueError(
                f"study {name}: there is no {folder / COSTS}: python scripts/costs.py {name} scale={scale}"
            )
        return write(report_of(study, scale, runs_dir, experiments), folder, show=show)
    if tuned:
        study = at_its_best(study, scale, settings_folder(study, scale, runs_dir, experiments))
    planned = plan_of(study, scale, merged(records, folder), experiments)
    if (planned["status"] == "done").any() or not holds_results(folder):
        if study.as_recorded:
            print(f"study {name}: there are runs with today's options: remove as_recorded from its study.yaml")
        study = replace(study, as_recorded="")
        folder.mkdir(parents=True, exist_ok=True)
        write_files(folder, planned, records, runs_dir)
    elif not study.as_recorded:
        raise ValueError(
            f"runs_dir={runs_dir} holds no finished run of study {name} at scale={scale} with today's options: make "
            f"the runs, or give the folder that holds them; {folder / 'runs.csv'} stays as it is"
        )
    return write(report_of(study, scale, runs_dir, experiments, tuned=tuned), folder, show=show)


def holds_results(folder: Path) -> bool:
    """True if runs.csv in the folder of a study has a finished run, which no empty report may replace."""
    return (folder / "runs.csv").exists() and bool((read_runs(folder / "runs.csv")["status"] == "done").any())


def records_of(runs_dir: Path, folders: Sequence[Path]) -> pd.DataFrame:
    """Load the records of a folder of runs; empty if there is no such folder, and the files of the study have runs.

    FileNotFoundError if there are neither. folders: folders of the study.
    """
    if not runs_dir.exists() and any((folder / "runs.csv").exists() for folder in folders):
        print(f"runs_dir={runs_dir} is no folder: the report uses only the runs in the files of the study")
        return pd.DataFrame(columns=KEYS)
    return load(runs_dir, knobs=False)


def report_of(
    study: Study, scale: str, runs_dir: Path = Path("runs"), experiments: Path = EXPERIMENTS, *, tuned: bool = True
) -> Report:
    """Return the report on a study, from the files of its folder alone, so that the same files give the same pages.

    study: with each arm at its chosen setting, if the arms were tuned. tuned: false leaves out the table of tuning.
    """
    folder = folder_of(study.name, scale, runs_dir, experiments)
    settings = settings_folder(study, scale, runs_dir, experiments)
    evidence = evidence_of(study, scale, folder)
    again = f"python scripts/report.py {study.name} scale={scale}"
    makes = again.replace("report.py", "costs.py" if study.of_costs else "study.py")
    return Report(
        study=study,
        scale=scale,
        evidence=evidence,
        judgement=judge(study, evidence),
        commands=[] if study.as_recorded else [makes],
        again=again,
        costs=read_costs(settings),
        tuned=read_tuned(settings / FILE) if tuned and (settings / FILE).exists() else None,
        fresh=on_fresh_seeds(study, scale, experiments),
    )


def evidence_of(study: Study, scale: str, folder: Path) -> Evidence:
    """Return the results of a study at a scale, from the files of its folder."""
    if study.of_costs:
        return Evidence(measurements(study, scale, folder))
    table = recorded(study, scale, folder) if study.as_recorded else rows_of(folder)
    whole = {identity: hits.right for identity, hits in read_hits(folder).items() if hits.asked.all()}
    return Evidence(table, learning_curves(table, read_curves(folder)), whole)


def measurements(study: Study, scale: str, folder: Path) -> pd.DataFrame:
    """Return the rounds of costs.csv as runs of a study: the number of the round takes the place of the seed."""
    columns = {"images_per_s": "final/images_per_s", "step_ms": "final/step_ms_median"}
    columns |= {"tokens": "model/tokens", "gmacs": "model/gmacs", "round": "seed", "computation": "identity"}
    costs = read_costs(folder).rename(columns=columns).assign(status="done")
    arms = pd.DataFrame(
        [(part.name, arm) for part in parts_at(study, scale) for arm in part.arms], columns=["part", "arm"]
    )
    table = arms.merge(costs, on=["part", "arm"], how="left").assign(scale=scale, rung="")
    return table.assign(status=table["status"].fillna("not run"))


def on_fresh_seeds(study: Study, scale: str, experiments: Path) -> Fresh | None:
    """Judge the scale that repeats this scale, if its folder has finished runs; None otherwise."""
    for name, other in study.scales.items():
        folder = folder_of(study.name, name, Path("runs"), experiments)
        if other.like == scale and holds_results(folder):
            evidence = evidence_of(study, name, folder)
            return Fresh(name, judge(study, evidence), seeds_in_words(evidence.cells["seed"]))
    return None


def seeds_in_words(seeds: pd.Series) -> str:
    """Spell the first and the last of the seeds: 100 to 109."""
    return f"{seeds.min():.0f} to {seeds.max():.0f}"


def at_its_best(study: Study, scale: str, settings: Path) -> Study:
    """Return the study with each arm at the setting that tuning chose, in parts that are completely tuned.

    settings: folder of the chosen settings.
    """
    return best(study, scale, settings, complete=False) if (settings / FILE).exists() else study


def rows_of(folder: Path) -> pd.DataFrame:
    """Read the rows of runs.csv; the budget, column rung, is empty in a part without a ladder."""
    table = read_runs(folder / "runs.csv")
    return table.assign(rung=table["rung"].fillna("") if "rung" in table else "")


def recorded(study: Study, scale: str, folder: Path) -> pd.DataFrame:
    """Return the planned runs of a study with their results in runs.csv, matched by part, arm, budget and seed."""
    known = rows_of(folder)
    keys = ["part", "arm", "rung", "seed"]
    planned = pd.DataFrame([(cell.part, cell.arm, cell.rung, cell.seed) for cell in cells(study, scale)], columns=keys)
    table = planned.assign(scale=scale).merge(known.drop(columns="scale"), on=keys, how="left")
    table["status"] = table["status"].fillna("not run")
    return table


def likely_scale(study: Study, identities_by_scale: Mapping[str, Set[str]], experiments: Path) -> str:
    """Return the scale with the most runs of the first arm of each part; of equal scales, cpu.

    identities_by_scale: identities of the existing runs, by scale.
    """
    first = {part.name: next(iter(part.arms)) for part in study.parts}

    def finished(scale: str) -> tuple[int, bool]:
        planned = [cell for cell in cells(study, scale, experiments) if cell.arm == first[cell.part]]
        return len(identities_by_scale[scale] & set(identities(study, planned))), scale == "cpu"

    return max(study.scales, key=finished)


def report_sweep(runs_dir: Path, where: Mapping[str, str], against: str | None = None, *, show: bool = False) -> Path:
    """Write a report on the runs of a folder, with the pages of a study, and return the path of report.html.

    Each combination of the values that vary among the runs is an arm. where: values that the runs must have, by factor
    or option. against: arm with which all others are compared; None: the first. show: print the comparisons. ValueError
    if no finished run has these values, or there is no such arm.
    """
    records = load(runs_dir)
    finished = records[records["status"] == "done"]
    records = records.drop(finished.index[finished.duplicated("identity")])  # a copy of a folder counts once
    for name, value in where.items():
        if name not in records:
            raise ValueError(
                f"{name}={value}: {name} takes one value in all runs of {runs_dir}, or is none of its columns"
            )
    conditions = [f"{name}={value}" for name, value in where.items()]
    records = filter_rows(records, conditions)
    done = records[records["status"] == "done"]
    if done.empty:
        raise ValueError(
            f"runs_dir={runs_dir} holds no finished run{' with these values' * bool(where)}: nothing to report"
        )
    name_arms = arm_names(done)
    table = records.assign(
        part=records.get("data", pd.Series(dtype=str)), arm=name_arms.reindex(records.index).fillna(records["run"])
    )
    table = table.assign(part=table["part"].fillna(""), rung="")
    study = sweep_as_study(runs_dir, table[table["status"] == "done"], against)
    chosen = " ".join(conditions)
    given = shlex.join([str(runs_dir), *conditions, *([] if against is None else [f"against={against}"])])
    folder = runs_dir / "reports" / (chosen.replace(" ", "_").replace("/", "-") or "all")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "runs.csv", table.dropna(axis=1, how="all").to_csv(index=False))
    evidence = Evidence(table, learning_curves(table, curve_points(table[table["status"] == "done"], runs_dir)))
    report = Report(
        study=study,
        scale="",
        evidence=evidence,
        judgement=judge(study, evidence),
        commands=[],
        again=f"python scripts/report.py {given}",
        sweep=True,
    )
    return write(report, folder, show=show)


def arm_names(done: pd.DataFrame) -> pd.Series:
    """Name the arm of each run by the factors and options that vary, without seed and data: `pos=learned patch=4`."""
    varied = [name for name in VARIED if done[name].nunique(dropna=False) > 1]
    settings = [
        name
        for name in done.columns[list(done.columns).index("status") :]
        if "." in name or name in ("epochs", "batch_size")
    ]
    groups = done.groupby(["data", *varied], dropna=False)
    varied += [name for name in settings if (groups[name].nunique() > 1).any()]
    if not varied:
        return pd.Series("all", index=done.index)
    levels = done[varied].map(lambda v: "none" if pd.isna(v) else f"{v:g}" if isinstance(v, float) else str(v))
    if len(varied) == 1:
        return levels[varied[0]]
    return levels.apply(lambda row: " ".join(f"{name}={value}" for name, value in row.items()), axis=1)


def sweep_as_study(runs_dir: Path, done: pd.DataFrame, against: str | None) -> Study:
    """Return a study that compares each arm with the first arm, or with `against`; nothing is predicted.

    ValueError if a data set has no arm `against`.
    """
    parts = []
    for data, rows in done.groupby("data"):
        ordered = rows.drop_duplicates("arm").sort_values([n for n in VARIED if rows[n].notna().all()])["arm"]
        arms: dict[str, tuple[str, ...]] = dict.fromkeys(ordered, ())
        first = next(iter(arms)) if against is None else against
        if first not in arms:
            raise ValueError(f"against={first} is no arm of {data}: {', '.join(arms)}")
        arms = {first: (), **arms}
        statements = tuple(
            Statement(f"{data}: {arm}", "", (((1, arm), (-1, first)),), 0.0, np.inf, "claim", "", "test/acc")
            for arm in arms
            if arm != first
        )
        parts.append(Part(str(data), arms, (), {}, (), "test/acc", None, statements))
    return Study(str(runs_dir), f"Runs of {runs_dir}", (), {}, tuple(parts), (), ())


def report_all(experiments: Path = EXPERIMENTS) -> list[Path]:
    """Write the pages over all studies, from the files in their folders alone, and return the paths of the pages."""
    reports = list(all_reports(experiments))
    text, pictures = effects.page(reports)
    pages_of_all = {
        "effects.md": ("What each design choice is worth", text or "No study has been run."),
        "predictions.md": ("Predicted against found", predictions(reports)),
        "errata.md": (
            "What was withdrawn and changed",
            errata([read_study(name, experiments) for name in studies(experiments)]),
        ),
    }
    for name, drawn in pictures.items():
        write_whole(experiments / name, drawn)
    for name, (title, body) in pages_of_all.items():
        write_whole(experiments / name, f"# {title}\n\n{MADE_BY}\n\n{body}")
    return [experiments / name for name in pages_of_all]


def all_reports(experiments: Path) -> Iterator[tuple[Report, Mapping[str, str]]]:
    """Yield the reports on all studies, with the links to their pages."""
    for name in studies(experiments):
        for scale in read_study(name, experiments).scales:
            yield from reports_on(name, experiments, scale)


def reports_on(name: str, experiments: Path, scale: str) -> Iterator[tuple[Report, Mapping[str, str]]]:
    """Yield the report on a study at a scale, with the link to its page, if its folder has results of that scale."""
    study, folder = read_study(name, experiments), folder_of(name, scale, Path("runs"), experiments)
    if scale != "smoke" and scale in study.scales and (folder / (COSTS if study.of_costs else RUNS)).exists():
        study = at_its_best(study, scale, settings_folder(study, scale, Path("runs"), experiments))
        report = report_of(study, scale, experiments=experiments)
        if not study.as_recorded and not study.of_costs:
            of_today(study, scale, folder, experiments, report.cells)
        yield report, {"report": str((folder / "README.md").relative_to(experiments))}


def of_today(study: Study, scale: str, folder: Path, experiments: Path, rows: pd.DataFrame) -> None:
    """Raise ValueError if a run in runs.csv has other options than study.yaml; only the first seed of an arm counts."""
    first = {(cell.part, cell.arm, cell.rung): cell for cell in reversed(cells(study, scale, experiments))}
    today = dict(zip(first, identities(study, list(first.values())), strict=True))
    for row in rows[rows["status"] == "done"].itertuples():
        key = row.part, row.arm, row.rung
        if key in first and row.seed == first[key].seed and row.identity != today[key]:
            raise ValueError(
                f"{folder / 'runs.csv'}: part {row.part}, arm {row.arm} was run with other options than study.yaml has "
                f"today: make the runs again and python scripts/report.py {study.name} scale={scale}, or say in "
                "study.yaml how they differ, as_recorded: ..."
            )


def learning_curves(table: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Return the validation accuracy after each epoch of every finished run, as `score`, and its training cost so far.

    table: rows of runs. points: the columns POINTS of each run. gflops: cost of training until this epoch, in units of
    1e9 FLOPs.
    """
    names = ["part", "arm", "rung", "seed", "identity", "gflops"]
    runs = table.assign(gflops=train_gflops(table))[table["status"] == "done"].reindex(columns=names)
    joined = runs.merge(points[POINTS], on="identity", validate="many_to_many").rename(columns={"val/acc": "score"})
    return joined.assign(gflops=joined["images"] * joined["gflops"])


def write(report: Report, folder: Path, *, show: bool) -> Path:
    """Write the pages and figures of a report, and return the path of report.html.

    Figures of an earlier report are removed first, since that report may have had other parts. show: print its summary.
    """
    text = page.markdown(report)
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, drawn in report.pictures.items():
        write_whole(folder / name, drawn)
    write_whole(folder / "README.md", text)
    path = folder / "report.html"
    write_whole(path, page.page(report, text))
    if show:
        for line in summary(report):
            print(line)
    return path
