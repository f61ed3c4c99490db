"""The runs on disk: filtering, sorting, writing and deletion do what was asked for."""

import os
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from support import configure, record, train_in

from patchbench.runs import browse as runs
from patchbench.runs import records
from patchbench.runs.lock import locked
from patchbench.runs.record import to_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One real run, and copies of its record with other factors and results."""
    root = tmp_path_factory.mktemp("runs")
    quick = ["model=micro", "data.img_size=16", "patch=4", "epochs=1", "limit_batches=2", "trainer=cpu", "logger=csv"]
    train_in(configure(*quick), root / "real_00000000")
    done = record(root)
    for i in range(12):
        done["factors"] |= {"embed": ["conv", "overlap"][i % 2], "patch": [4, None][i % 2], "seed": i // 2}
        done["result"]["test/acc"] = i / 12
        place = root / f"copy_{i:08x}"
        place.mkdir()
        (place / "run.json").write_text(to_json(done))
    (root / "failed_ffffffff").mkdir()
    (root / "failed_ffffffff" / "log.txt").write_text("error: patch=7 does not fit\n")
    return root


def test_conditions_choose_by_level_by_several_and_by_number(folder):
    frame = records.load(folder)
    assert len(frame) == 14
    assert set(runs.filter_rows(frame, ["embed=overlap"])["embed"]) == {"overlap"}
    assert len(runs.filter_rows(frame, ["seed=1,2", "status=done"])) == 4
    assert len(runs.filter_rows(frame, ["patch=4"])) == 6 + 1, "though beside others without a patch"
    assert (runs.filter_rows(frame, ["test/acc>=0.5"])["test/acc"] >= 0.5).all()
    assert runs.filter_rows(frame, ["status!=done"])["run"].tolist() == ["failed_ffffffff"]


@pytest.mark.parametrize(
    ("condition", "message"),
    [("embd=conv", "did you mean embed"), ("embed", "cannot read"), ("test/acc>high", "'high' is no number")],
)
def test_a_condition_that_means_nothing_is_refused(folder, condition, message):
    with pytest.raises(ValueError, match=message):
        runs.filter_rows(records.load(folder), [condition])


def test_columns_are_those_that_vary_unless_asked_for_and_sorted_as_asked(folder):
    frame = runs.filter_rows(records.load(folder), ["status=done"])
    table = runs.select_columns(frame, [], "-test/acc")
    assert {"embed", "seed", "patch"} < set(table) - {"data"}
    assert table["test/acc"].is_monotonic_decreasing
    assert list(runs.select_columns(frame, ["seed", "test/acc"], None)) == ["seed", "test/acc"]


def test_files_hold_every_run(folder, tmp_path):
    frame = records.load(folder)
    for name in ("runs.csv", "runs.parquet"):
        runs.write(frame, tmp_path / name)
    assert len(pd.read_csv(tmp_path / "runs.csv")) == len(pd.read_parquet(tmp_path / "runs.parquet")) == 14
    with pytest.raises(ValueError, match=r"must end in \.csv or \.parquet"):
        runs.write(frame, tmp_path / "runs.xls")


def test_names_that_are_no_text_and_logs_that_are_no_files_cost_no_table(folder, tmp_path, command):
    """A name may have any bytes, and markup of the library that prints the table."""
    here = Path(shutil.copytree(folder, tmp_path / "all"))
    for name in (b"bad\xff_00000021", b"[b]x[b]_00000022", b"[_b]_00000023"):
        os.mkdir(os.path.join(os.fsencode(here), name))
    (here / "[_b]_00000023" / "log.txt").mkdir()
    for script, given in {"runs.py": "out=all.csv", "dashboard.py": "", "report.py": ""}.items():
        where = [str(here)] if script == "report.py" else [f"runs_dir={here}"]
        done = command(f"scripts/{script}", *where, *filter(None, [given]))
        assert done.returncode == 0, done.stderr
    done = command("scripts/runs.py", f"runs_dir={here}")
    assert rf"left out: {here}/bad\udcff_00000021, whose name is no text: rename the folder" in done.stderr
    assert "[b]x[b]_00000022" in done.stdout


def test_a_run_that_is_a_link_is_not_deleted(folder, tmp_path):
    here = Path(shutil.copytree(folder, tmp_path / "all"))
    shutil.move(here / "copy_00000003", tmp_path / "elsewhere")
    (here / "copy_00000003").symlink_to(tmp_path / "elsewhere")
    before = sorted(path.name for path in here.iterdir())
    with pytest.raises(ValueError, match=r"copy_00000003 is a link to .*elsewhere: remove it by hand"):
        runs.delete(records.load(here), here)
    assert sorted(path.name for path in here.iterdir()) == before


def test_what_is_deleted_is_gone_and_what_is_being_trained_stays(folder, capsys):
    frame = runs.filter_rows(records.load(folder), ["seed=5"])
    busy, idle = frame["run"]
    with locked(folder / busy, lambda: None):
        assert runs.delete(frame, folder) == [busy]
    assert not (folder / idle).exists()
    assert (folder / busy / "run.json").exists()
    runs.print_table(runs.select_columns(frame, [], None), frame, 50)
    assert "2 runs: 2 done" in capsys.readouterr().out


def test_the_command_speaks_in_lines(command, tmp_path):
    none = command("scripts/runs.py")
    assert (none.returncode, none.stdout) == (2, "")
    assert none.stderr.startswith("error: runs_dir=runs is no folder")
    unsafe = command("scripts/runs.py", f"runs_dir={tmp_path}", "delete=true")
    assert "say which runs" in unsafe.stderr


@pytest.mark.slow
def test_ten_thousand_runs_are_read_in_seconds(folder, tmp_path):
    text = (folder / "copy_00000000" / "run.json").read_text()
    for i in range(10_000):
        (tmp_path / f"copy_{i:08x}").mkdir()
        (tmp_path / f"copy_{i:08x}" / "run.json").write_text(text)
    began = time.process_time()
    assert len(records.load(tmp_path)) == 10_000
    assert time.process_time() - began < 10
