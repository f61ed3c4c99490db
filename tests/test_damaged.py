"""Damaged files of runs, after a kill, a full disk or an edit: each is named and left out, all other runs are shown."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support import MICRO, Cut, command_in, configure, cut_at, metrics, record, run, some, train_in

from patchbench.commands.report import report_sweep
from patchbench.pages.dashboard.gather import gather
from patchbench.runs import records
from patchbench.runs.record import read_record, to_json
from patchbench.runs.rows import read_rows, repair
from patchbench.sweep.view import progress
from patchbench.track.metrics_csv import MetricsCsv

QUICK = ["model=micro", "data.img_size=16", "patch=4", "epochs=2", "limit_batches=4", "log_every=1"]


@pytest.fixture(scope="module")
def trained(once) -> Path:
    """Two real runs, and four copies of them with other seeds."""
    return once("runs-to-damage", fill)


def fill(root: Path) -> None:
    for i, pos in enumerate(("none", "learned")):
        folder = root / f"conv-4_{pos}_digits_s0_{i:08x}"
        train_in(configure(*QUICK, f"pos={pos}", "trainer=cpu", "logger=csv"), folder)
        for seed in (1, 2):
            copy = Path(shutil.copytree(folder, root / f"conv-4_{pos}_digits_s{seed}_{i + 2 * seed:08x}"))
            done = json.loads((copy / "run.json").read_text())
            done["factors"]["seed"], done["identity"] = seed, copy.name[-8:]
            (copy / "run.json").write_text(to_json(done))


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs"))


VICTIM = "conv-4_none_digits_s1_00000002"


def without(*path: str) -> Callable[[bytes], bytes]:
    return lambda whole: edited(whole, path, None)


def edited(whole: bytes, path: tuple[str, ...], value: Any) -> bytes:
    """Return a record with another value at a path, or, for None, without the entry."""
    done = json.loads(whole)
    *above, last = path
    part = done
    for name in above:
        part = part[name]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return to_json(done).encode()


RECORDS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "zeros": lambda whole: bytes(4096),
    "binary": lambda whole: bytes(range(256)) * 9,
    "a flipped bit": lambda whole: whole.replace(b'"result"', b'"resulu"'),
    "a list": lambda whole: b"[1, 2]",
    "a word": lambda whole: b'"done"',
    "null": lambda whole: b"null",
    "nested": lambda whole: b"[" * 100_000,
    "a long number": lambda whole: b'{"identity": ' + b"9" * 5000 + b"}",
    "no environment": without("environment"),
    "no machine": without("environment", "machine"),
    "no batch size": without("config", "batch_size"),
    "factors are a list": lambda whole: edited(whole, ("factors",), ["conv"]),
    "a result is null": lambda whole: edited(whole, ("result",), [None]),
    "another figure": lambda whole: re.sub(rb'("test/acc": )0', rb"\g<1>1", whole),
    "another digest": lambda whole: re.sub(rb'("digest": ")[^"]', rb"\1_", whole),
    "no digest": lambda whole: json.dumps({**json.loads(whole), "digest": None}).encode(),
    "a figure is a word": lambda whole: edited(whole, ("result", "test/acc"), "high"),
    "a figure is a list": lambda whole: edited(whole, ("result", "val/acc_best"), [0.5]),
    "a figure is huge": lambda whole: edited(whole, ("result", "model/params"), 10**400),
    "gpus are a word": lambda whole: edited(whole, ("environment", "machine", "gpus"), "H100"),
    "eval is a word": lambda whole: edited(whole, ("eval",), "all"),
    "another folder": lambda whole: edited(whole, ("factors", "run"), "/tmp"),
    "another identity": lambda whole: edited(whole, ("environment", "versions", "identity"), "00000000"),
    "another status": lambda whole: edited(whole, ("result", "status"), 1.0),
    "versions are a list": lambda whole: edited(whole, ("environment", "versions", "torch"), [1]),
    "hits are a list": lambda whole: edited(whole, ("hits",), [1]),
}


@pytest.mark.promise("a record is damaged", "It is named in a line, and left out of every table and page")
@pytest.mark.parametrize("kind", some([*RECORDS, "a folder"], "a flipped bit"))
def test_a_damaged_record_is_named_and_left_out_of_every_table(runs, capsys, kind):
    path = runs / VICTIM / "run.json"
    if kind == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(RECORDS[kind](path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(str(path))) as refused:
        read_record(path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    capsys.readouterr()
    table = records.load(runs)
    assert table.set_index("run")["status"].value_counts().to_dict() == {"done": 5, "damaged": 1}
    assert re.fullmatch(rf"left out: {re.escape(str(path))} is .*\n", capsys.readouterr().err)
    data = gather(runs, runs / "dashboard.html")
    assert len(data["rows"]) == 6
    report = report_sweep(runs, {})
    assert "5 of 6 runs have a result" in (report.parent / "README.md").read_text()


ROWS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "half a header": lambda whole: b"step,na",
    "no header": lambda whole: whole.partition(b"\n")[2],
    "binary": lambda whole: bytes(range(256)) * 9,
    "zeros": lambda whole: bytes(4096),
    "zeros in the middle": lambda whole: whole[:200] + bytes(512) + whole[200:],
    "two lines in one": lambda whole: whole.replace(b"\r\n2,", b"2,", 1),
    "five columns in the first row": lambda whole: whole.replace(b"\r\n", b"\r\n1,a,1.0,b,2.0\r\n", 1),
    "a long field": lambda whole: whole + b"3," + b"x" * 300_000 + b",1.0\r\n4,a,1.0\r\n",
    "no text": lambda whole: whole.replace(b"train", b"tr\xff\xfein"),
}


@pytest.mark.promise("metrics.csv is damaged", "It is named in a line, and left out of every table and page")
@pytest.mark.parametrize("kind", some([*ROWS, "a folder"], "zeros in the middle", "a folder"))
def test_damaged_rows_are_named_and_left_out_of_every_page(runs, capsys, kind):
    path = runs / VICTIM / "metrics.csv"
    if kind == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(ROWS[kind](path.read_bytes()))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is damaged"):
        read_rows(path)
    capsys.readouterr()
    for read in (lambda: records.curves(path.parent, "val/acc"), lambda: gather(runs, runs / "dashboard.html")):
        read()
        assert re.fullmatch(rf"left out: {re.escape(str(path))} is damaged .*\n", capsys.readouterr().err)
    report_sweep(runs, {})
    assert re.search(rf"^left out: {re.escape(str(path))} is damaged", capsys.readouterr().err, re.MULTILINE)
    assert len(records.curves(runs / "conv-4_none_digits_s0_00000000", "val/acc")) == 2


@pytest.mark.promise("metrics.csv is damaged between cut and resume", "The run goes on, with the rows that are whole")
@pytest.mark.parametrize("kind", [*ROWS, "a torn line", "a torn number", "whole", "no file"])
def test_a_resumed_run_mends_its_rows_and_goes_on(runs, tmp_path, kind):
    path = runs / VICTIM / "metrics.csv"
    whole = path.read_bytes()
    before = read_rows(path)
    torn = {"a torn line": whole[:-30], "a torn number": whole[:-4], "whole": whole, "no file": b""}
    path.write_bytes(torn[kind] if kind in torn else ROWS[kind](whole))
    if kind == "no file":
        path.unlink()
    MetricsCsv(path).log_metrics({"val/acc": 0.25, "epoch": 3}, 99)
    after = read_rows(path)
    assert (after["val/acc"][99], after["epoch"][99]) == (0.25, 3)
    assert set(pd.read_csv(path)["name"]) == set(after)
    mended = path.read_bytes()
    repair(path)
    assert path.read_bytes() == mended
    kept = {(name, step) for name, steps in after.items() for step in steps if step != 99}
    assert all(after[name][step] == before[name][step] for name, step in kept if name in before)
    if kind in ("whole", "a torn line", "a torn number", "no header", "zeros in the middle", "two lines in one"):
        assert len(kept) > sum(map(len, before.values())) - 4, "what is whole is kept"
    if kind == "whole":
        assert mended.startswith(whole)


@pytest.mark.slow
def test_a_run_whose_disk_was_full_goes_on_with_all_of_its_rows(tmp_path, monkeypatch):
    """The file of one run ends within a line, that of the other is empty."""
    expected = run(tmp_path / "undisturbed", *QUICK)
    for name, spoil in {"torn": lambda text: text[:-9], "emptied": lambda text: b""}.items():
        with monkeypatch.context() as patch:
            cut_at(patch, 6, "crash")
            with pytest.raises(Cut):
                run(tmp_path / name, *QUICK)
        rows = tmp_path / name / "metrics.csv"
        rows.write_bytes(spoil(rows.read_bytes()))
        done = run(tmp_path / name, *QUICK)
        assert done["result"]["val/acc"] == expected["result"]["val/acc"]
        losses, undisturbed = metrics(tmp_path / name)["train/loss"], metrics(tmp_path / "undisturbed")["train/loss"]
        assert losses.dropna().tail(4).to_dict() == pytest.approx(undisturbed.dropna().tail(4).to_dict())


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "7", '{"step": 1}', "[" * 100_000, "\0\xff"),
        '{"step": "a", "total": 2, "figures": ""}',
        '{"step": 1, "total": null, "figures": ""}',
        '{"step": 1, "total": Infinity, "figures": ""}',
    ],
)
def test_a_damaged_file_of_progress_is_no_progress(tmp_path, text):
    (tmp_path / "progress.json").write_bytes(text.encode("latin1"))
    assert progress(tmp_path / "progress.json") == (0, 0, "")
    assert progress(tmp_path / "none.json") == (0, 0, "")
    (tmp_path / "progress.json").write_text('{"step": 1, "total": 2, "figures": "loss 1"}')
    assert progress(tmp_path / "progress.json") == (1, 2, "loss 1")


@pytest.mark.slow
def test_commands_go_on_without_what_is_damaged_and_a_sweep_fails_only_the_cell_of_it(runs, tmp_path):
    """The commands read a folder with one file of each kind of damage."""
    for i, spoil in enumerate(RECORDS.values()):
        folder = Path(shutil.copytree(runs / VICTIM, runs / f"broken-{i}_{i + 100:08x}"))
        (folder / "run.json").write_bytes(spoil((folder / "run.json").read_bytes()))
        rows = list(ROWS.values())[i % len(ROWS)]
        (folder / "metrics.csv").write_bytes(rows((folder / "metrics.csv").read_bytes()))
    for script, given in {"runs": ["runs_dir=runs"], "dashboard": [], "report": ["runs"]}.items():
        done = command_in(tmp_path, f"scripts/{script}.py", *given)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        for i in range(len(RECORDS)):
            assert f"left out: runs/broken-{i}_{i + 100:08x}/run.json is " in done.stderr, (script, i)
    sweep = ["-m", *MICRO, "epochs=1", "logger=csv", "seed=0,1", "runs_dir=swept"]
    assert command_in(tmp_path, "train.py", *sweep).returncode == 0
    first, second = sorted((tmp_path / "swept").glob("*/run.json"))
    for spoil in RECORDS.values():
        first.write_bytes(spoil(second.read_bytes()))
        with pytest.raises(ValueError, match=r"run\.json is"):
            read_record(first)
    first.write_bytes(b"")
    (first.parent / "progress.json").write_text("[]")
    done = command_in(tmp_path, "train.py", *sweep)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "2 cells: 1 done before, 1 failed" in done.stdout
    assert re.search(
        r"swept/\S+/run\.json is damaged \(.*\): remove its folder, or train it again by rerun=true", done.stdout
    )
    alone = command_in(tmp_path, "train.py", *MICRO, "epochs=1", "logger=csv", "seed=0", "runs_dir=swept")
    assert alone.returncode == 2
    assert re.fullmatch(r"error: swept/\S+/run\.json is damaged \(.*\): .*\n", alone.stderr)
    again = command_in(tmp_path, "train.py", *sweep, "rerun=true")
    assert again.returncode == 0, again.stdout
    assert record(first.parent)["factors"]["seed"] == 0
