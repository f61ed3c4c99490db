"""Write the pages of a study, of any folder of runs, and of all studies together, from the records of runs."""

import shlex
from collections.abc import Mapping, Set
from pathlib import Path

import numpy as np
import pandas as pd

from patchbench.config.options import EXPERIMENTS
from patchbench.config.plan import cells, folder_of, identities, plan_of, read_study, studies
from patchbench.config.tuning import FILE, best, read_tuned
from patchbench.machine import write_whole
from patchbench.runs.committed import POINTS, keep, merged, points_of, read_curves, read_runs
from patchbench.runs.metrics import FACTORS
from patchbench.runs.records import KEYS, load
from patchbench.study import pages
from patchbench.study.claim import Comparison, Part, Study
from patchbench.study.numbers import Report, train_gflops
from patchbench.study.verdict import Judgement, judge

VARIED = tuple(name for name in FACTORS if name not in ("data", "seed"))  # factors of arms; `data` makes the parts


def report_study(
    name: str, runs_dir: Path, scale: str | None = None, *, tuned: bool = False, experiments: Path = EXPERIMENTS
) -> Path:
    """Write runs.csv, curves.csv, hits.npz, report.md, its figures and report.html; returns report.html.

    scale: without one, the scale that has most runs. tuned: every arm at the best setting of its grid. Runs that the
    files of the study hold, and `runs_dir` does not, count as well.
    ValueError or OSError in one line if there can be no report.
    """
    study = read_study(name, experiments)
    folders = {each: folder_of(name, each, runs_dir, experiments) for each in study.scales}
    wanted = [folders[scale]] if scale in folders else folders.values()
    committed = any((folder / "runs.csv").exists() for folder in wanted)
    if committed and not runs_dir.exists():
        print(f"runs_dir={runs_dir} is no folder: the report is about the runs that the files of the study hold")
        records = pd.DataFrame(columns=KEYS)
    else:
        records = load(runs_dir, knobs=False)
    there = {each: set(merged(records, folder)["identity"]) for each, folder in folders.items()}
    scale = scale or likely_scale(study, there)
    folder = folders.get(scale) or folder_of(name, scale, runs_dir, experiments)
    if tuned:
        study = best(study, scale, folder)
    planned = plan_of(study, scale, merged(records, folder))
    if not (planned["status"] == "done").any() and (folder / "runs.csv").exists():
        raise ValueError(
            f"runs_dir={runs_dir} holds no finished run of study {name} at scale={scale} with today's options: make "
            f"the runs, or give the folder that holds them; {folder / 'runs.csv'} stays as it is"
        )
    folder.mkdir(parents=True, exist_ok=True)
    keep(folder, planned, records, runs_dir)
    table = read_runs(folder / "runs.csv")  # so that the pages agree with the files
    where = "" if runs_dir == Path("runs") else f" {shlex.quote(f'runs_dir={runs_dir}')}"
    report = Report(
        study=study,
        scale=scale,
        cells=table,
        curves=learning_curves(table, read_curves(folder)),
        judgement=judge(study, table),
        commands=[f"python scripts/study.py {name} scale={scale}{' tune=true' * tuned}{where}"],
        again=f"python scripts/report.py {name} scale={scale}{' tune=true' * tuned}{where}",
        tuned=read_tuned(folder / FILE) if tuned else None,
    )
    return write(report, folder)


def likely_scale(study: Study, there: Mapping[str, Set[str]]) -> str:
    """The scale that has most runs, by the first arm of each part; of equal ones, cpu. there: identities by scale."""
    first = {part.name: next(iter(part.arms)) for part in study.parts}

    def finished(scale: str) -> tuple[int, bool]:
        planned = [cell for cell in cells(study, scale) if cell.arm == first[cell.part]]
        return len(there[scale] & set(identities(study, planned))), scale == "cpu"

    return max(study.scales, key=finished)


def report_sweep(runs_dir: Path, where: Mapping[str, str], against: str | None = None) -> Path:
    """Write the same tables over whatever factors vary among the runs of a folder; returns report.html.

    where: the level of a factor, or the value of an option, that the runs must have. against: the arm that all others
    are compared with.
    """
    records = load(runs_dir)
    finished = records[records["status"] == "done"]
    records = records.drop(finished.index[finished.duplicated("identity")])  # a copy of a folder is no evidence
    for name, value in where.items():
        if name not in records:
            raise ValueError(
                f"{name}={value}: {name} takes one value in all runs of {runs_dir}, or is none of its columns"
            )
        records = records[records[name].astype(str) == value]
    done = records[records["status"] == "done"]
    if done.empty:
        raise ValueError(f"runs_dir={runs_dir} holds no finished run{' of these' * bool(where)}: nothing to report")
    name_arms = arm_names(done)
    table = records.assign(
        part=records.get("data", pd.Series(dtype=str)), arm=name_arms.reindex(records.index).fillna(records["run"])
    )
    table["part"] = table["part"].fillna("")
    study = sweep_as_study(runs_dir, table[table["status"] == "done"], against)
    chosen = " ".join(f"{name}={value}" for name, value in where.items())
    given = shlex.join([str(runs_dir), *(f"{name}={value}" for name, value in where.items())])
    folder = runs_dir / "reports" / (chosen.replace(" ", "_").replace("/", "-") or "all")
    folder.mkdir(parents=True, exist_ok=True)
    table.dropna(axis=1, how="all").to_csv(folder / "runs.csv", index=False)
    points = points_of(table[table["status"] == "done"], runs_dir)
    report = Report(
        study=study,
        scale="",
        cells=table,
        curves=learning_curves(table, points),
        judgement=judge(study, table),
        commands=[],
        again=f"python scripts/report.py {given}",
        sweep=True,
    )
    return write(report, folder)


def arm_names(done: pd.DataFrame) -> pd.Series:
    """Name the arm of each run by the levels that vary, the seed and the data set aside: `pos=learned patch=4`."""
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
    """Compare every arm with the first, or with `against`; nothing is predicted."""
    parts = []
    for data, rows in done.groupby("data"):
        ordered = rows.drop_duplicates("arm").sort_values([n for n in VARIED if rows[n].notna().all()])["arm"]
        arms = dict.fromkeys(ordered, ())
        first = next(iter(arms)) if against is None else against
        if first not in arms:
            raise ValueError(f"against={first} is no arm of {data}: {', '.join(arms)}")
        comparisons = tuple(
            Comparison("", (((1, arm), (-1, first)),), 0.0, np.inf, "aside", "undetermined", "test/acc")
            for arm in arms
            if arm != first
        )
        parts.append(Part(str(data), arms, (), {}, (), "test/acc", None, comparisons))
    title = f"Runs of {runs_dir}"
    return Study(str(runs_dir), title, "", "", "undetermined", {}, {}, tuple(parts), (), ())


def report_all(experiments: Path = EXPERIMENTS) -> Path:
    """Write experiments/README.md from the runs.csv of each study, so that it needs no runs."""
    rows: list[tuple[Study, Judgement | None, dict[str, str]]] = []
    for name in studies(experiments):
        study = read_study(name, experiments)
        folders = [experiments / name, *(experiments / name / scale for scale in study.scales)]
        written = [folder for folder in folders if (folder / "runs.csv").exists()]
        for folder in written:
            judgement = judge(study, read_runs(folder / "runs.csv"))
            report = (folder / "report.md").relative_to(experiments)
            rows.append((study, judgement, {"report": str(report), "protocol": f"{name}/README.md"}))
        if not written:
            rows.append((study, None, {"protocol": f"{name}/README.md"}))
    path = experiments / "README.md"
    write_whole(path, pages.index(rows))
    return path


def learning_curves(table: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Validation accuracy after each epoch of every finished run, and the cost up to that epoch.

    table: rows of runs. points: the columns POINTS of each run.
    """
    names = ["part", "arm", "seed", "identity", "final/images_per_s"]
    runs = table.assign(gflops=train_gflops(table))[table["status"] == "done"].reindex(columns=[*names, "gflops"])
    found = runs.merge(points[POINTS], on="identity", validate="many_to_many").rename(columns={"val/acc": "score"})
    return found.assign(gflops=found["images"] * found["gflops"], s=found["images"] / found["final/images_per_s"])


def write(report: Report, folder: Path) -> Path:
    """Write pages and figures. Figures of an earlier report are removed, since its parts may have been others."""
    text = pages.markdown(report)
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, drawn in report.pictures.items():
        write_whole(folder / name, drawn)
    write_whole(folder / "report.md", text)
    path = folder / "report.html"
    write_whole(path, pages.page(report, text))
    return path
