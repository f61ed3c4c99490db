"""The files of a study contain its finished runs without loss, and another machine continues from them."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from support import STUDY, configure, some, train_in

from patchbench.commands.report import report_study
from patchbench.config.plan import COMMON_OVERRIDES, cells, read_study
from patchbench.runs import committed
from patchbench.runs.hits import Hits, read_hits
from patchbench.runs.record import to_json
from patchbench.runs.records import load
from patchbench.runs.sums import SUMS
from patchbench.sweep.study import cells_to_run

FILES = (committed.RUNS, committed.CURVES, committed.HITS)


@pytest.fixture
def runs(study_runs, tmp_path) -> Path:
    """A copy of the runs that a test may damage."""
    return Path(shutil.copytree(study_runs, tmp_path / "runs"))


@pytest.fixture
def experiments(tmp_path) -> Path:
    folder = tmp_path / "experiments" / "positions"
    folder.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(STUDY), folder / "study.yaml")
    return folder.parent


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def report(experiments: Path, runs: Path) -> dict[str, bytes]:
    """Read all files of the study after its report at scale cpu."""
    return content(report_study("positions", runs, "cpu", experiments=experiments).parent)


def test_every_number_and_every_name_reads_back_as_it_was(tmp_path):
    draw = np.random.default_rng(0)
    numbers = [0.1 + 0.2, 1 / 3, 1e-320, 5e300, 1.0, float(np.float32(0.1)), 2.0**60, math.nan, *draw.random(50)]
    n = len(numbers)
    names = ["16", "none", "1e10", "0x1", "NA", "a,b", 'say "x"', "None", *map(str, range(n - 8))]
    table = pd.DataFrame({"scale": "cpu", "part": "1", "arm": names, "seed": range(n), "identity": "12345678"})
    table = table.assign(run="r", status="done", commit="00012e45", torch="2.10", data="digits", patch=4)
    table = table.assign(**{"test/acc": numbers, "model/grid": "4x4", "test/right": np.arange(n), "epochs": 15})
    committed.write_runs(tmp_path / "one.csv", table)
    again = committed.read_runs(tmp_path / "one.csv")
    np.testing.assert_array_equal(again["test/acc"], table["test/acc"])
    for name in ("arm", "part", "identity", "commit", "torch", "seed", "model/grid", "epochs", "test/right"):
        assert again[name].tolist() == table[name].tolist(), name
    committed.write_runs(tmp_path / "two.csv", again.sample(frac=1, axis=1, random_state=0))
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


@pytest.mark.parametrize("partly", [False, True])
def test_answers_by_identity_read_back_and_are_written_alike(tmp_path, partly):
    draw, hits = np.random.default_rng(0), {}
    for name, count in (("00000000", 360), ("1e100000", 8), ("ffffffff", 9)):
        asked = draw.random(count) < 0.9 if partly else np.ones(count, bool)
        hits[name] = Hits((draw.random(count) < 0.7) & asked, asked)
    for path in (tmp_path / "one" / committed.HITS, tmp_path / "two" / committed.HITS):
        committed.write_hits(path, hits)
    assert path.read_bytes() == (tmp_path / "one" / committed.HITS).read_bytes()
    again = committed.read_hits(tmp_path / "one")
    assert list(again) == list(hits)
    for name, known in hits.items():
        np.testing.assert_array_equal(again[name].right, known.right)
        np.testing.assert_array_equal(again[name].asked, known.asked)
    committed.write_hits(path, {})
    assert not path.exists()


def test_a_study_is_reported_where_its_runs_are_not_to_the_byte(runs, experiments):
    here = report(experiments, runs)
    assert set(FILES) < set(here)
    rows = committed.read_runs(experiments / "positions" / committed.RUNS)
    hits = committed.read_hits(experiments / "positions")
    for row in rows.itertuples():
        right = read_hits(runs / row.run).right
        np.testing.assert_array_equal(hits[row.identity].right, right)
        result = json.loads((runs / row.run / "run.json").read_text())["result"]
        assert rows.loc[row.Index, "test/acc"] == result["test/acc"] == right.sum() / result["test/images"]
    shutil.rmtree(runs)
    assert report(experiments, runs) == here, "the folder of runs is gone"
    runs.mkdir()
    assert report(experiments, runs) == here, "it is empty"
    train_in(configure(*STUDY["overrides"], "trainer=cpu", "patch=8", "epochs=1"), runs / "of_another_study_00000000")
    assert report(experiments, runs) == here, "it holds other runs"


@pytest.mark.slow
def test_two_machines_that_share_the_work_leave_the_files_of_one(runs, experiments, tmp_path):
    one = report(experiments, runs)
    for name in FILES:
        (experiments / "positions" / name).unlink()
    other = Path(shutil.copytree(runs, tmp_path / "other"))
    for path in [*runs.glob("*_2_*"), *other.glob("*_0_*"), *other.glob("*_1_*")]:
        shutil.rmtree(path)
    report(experiments, runs)
    (other / "learned_0_00000000").mkdir()  # of an attempt that failed here
    both = report(experiments, other)
    assert {name: both[name] for name in FILES} == {name: one[name] for name in FILES}


@pytest.mark.parametrize("name", some(FILES, committed.RUNS))
@pytest.mark.parametrize("share", some([0.5, 0.97, None], None), ids=["half", "nearly all", "a flipped bit"])
def test_a_file_that_was_cut_or_altered_is_refused_and_the_others_stay(runs, experiments, name, share):
    before = report(experiments, runs)
    shutil.rmtree(runs)
    runs.mkdir()
    path = experiments / "positions" / name
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes(flipped if share is None else whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} does not have its digest in {SUMS}"):
        report(experiments, runs)
    path.write_bytes(whole)
    assert report(experiments, runs) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", [committed.CURVES, committed.HITS])
@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", bytes(range(256))])
def test_a_damaged_file_without_a_digest_is_named(runs, experiments, name, content):
    report(experiments, runs)
    (experiments / "positions" / SUMS).unlink()
    path = experiments / "positions" / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is damaged \("):
        report(experiments, runs)


def test_a_record_here_wins_and_what_is_no_longer_planned_is_dropped(runs, experiments):
    report(experiments, runs)
    table = load(runs)
    path = runs / table.set_index(["pos", "seed"])["run"]["learned", 1] / "run.json"
    record = json.loads(path.read_text())
    path.write_text(to_json(record | {"result": record["result"] | {"test/loss": 7.25}}))
    report(experiments, runs)
    rows = committed.read_runs(experiments / "positions" / committed.RUNS).set_index("identity")
    assert rows.loc[record["identity"], "test/loss"] == 7.25
    path.unlink()
    (path.parent / "log.txt").write_text("OSError: disk full")
    report(experiments, runs)
    rows = committed.read_runs(experiments / "positions" / committed.RUNS).set_index("identity")
    assert rows.loc[record["identity"], ["status", "test/loss"]].tolist() == ["done", 7.25], "it was finished before"

    fewer = STUDY | {"scales": STUDY["scales"] | {"cpu": {"seeds": "0-1"}}}
    OmegaConf.save(OmegaConf.create(fewer), experiments / "positions" / "study.yaml")
    report(experiments, runs)
    left = committed.read_runs(experiments / "positions" / committed.RUNS)
    assert sorted(left["seed"]) == [0, 0, 1, 1]
    assert set(committed.read_curves(experiments / "positions")["identity"]) == set(left["identity"])
    assert set(committed.read_hits(experiments / "positions")) == set(left["identity"])


@pytest.mark.slow
def test_a_sweep_makes_the_runs_that_no_machine_has_finished(runs, experiments, capsys):
    planned = [list(cell.overrides) for cell in cells(read_study("positions", experiments), "cpu")]

    def to_run(*arguments: str) -> list[list[str]]:
        return cells_to_run("positions", "cpu", "none", runs, arguments, experiments=experiments)

    assert to_run() == planned, "nothing is committed"
    report(experiments, runs)
    assert to_run() == planned, "all were finished here, as the sweep itself says"
    gone = [path for path in runs.iterdir() if path.name.startswith(("none_0", "learned_2"))]
    for path in gone:
        shutil.rmtree(path)
    assert len(to_run()) == 4
    assert "2 of 6 runs are in " in capsys.readouterr().out
    shutil.rmtree(runs)
    assert to_run() == []
    for other in ("rerun=true", "epochs=1", "eval.img_size=[24]", "analyze=true"):
        assert to_run(other) == [[*overrides, other] for overrides in planned], other


def test_a_run_that_was_asked_for_views_is_not_made_again_for_them(runs, experiments):
    views = "eval.img_size=[24]"
    OmegaConf.save(
        OmegaConf.create(STUDY | {"overrides": [*STUDY["overrides"], views]}), experiments / "positions" / "study.yaml"
    )
    path = next(runs.glob("none_0_*"))
    given = [*COMMON_OVERRIDES, *STUDY["overrides"], views, "trainer=cpu", "pos=none", "seed=0"]
    train_in(configure(*given), path)  # asks the finished run
    report(experiments, runs)
    shutil.rmtree(runs)
    missing = cells_to_run("positions", "cpu", "none", runs, [], experiments=experiments)
    assert [overrides[-1] for overrides in missing if "pos=none" in overrides] == ["seed=1", "seed=2"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("arm", "arms", "column arm is missing: a row has part, arm"),
        ("a,0,", "a,x,", "column seed must hold a whole number in every row"),
        ("a,1,", "a,0,", "part one, arm a, seed 0 has two rows: a seed counts once"),
        ("f1,done", "f1,done,1", "Expected 6 fields in line 3, saw 7"),
    ],
)
def test_a_table_that_counts_a_seed_twice_or_lacks_a_column_is_refused(old, new, said, tmp_path):
    rows = "scale,part,arm,seed,identity,status\ncpu,one,a,0,f0,done\ncpu,one,a,1,f1,done\n"
    path = tmp_path / committed.RUNS
    path.write_text(rows)
    assert len(committed.read_runs(path)) == 2
    head, _, tail = rows.partition("\n") if old == "arm" else ("", "", rows)
    path.write_text(head.replace(old, new) + "\n" + tail if head else tail.replace(old, new, 1))
    with pytest.raises(ValueError, match=said) as refused:
        committed.read_runs(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
