"""Altered files are refused: flipped bits, cut files, missing or foreign weights; the previous checkpoint is used."""

import errno
import functools
import io
import os
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support import command_in, configure, poison, run, train_in
from torch import nn

from patchbench.commands.reopen import Machine, reopen
from patchbench.config.errors import CellFailed, Refused
from patchbench.runs.record import read_record
from patchbench.runs.sealed import LENGTH, Damaged, check_seal, sealed_file
from patchbench.track.meter import Meter
from patchbench.train.checkpoint import PREVIOUS, AtomicCheckpoint, read_checkpoint
from patchbench.train.shard import load_weights
from patchbench.weights.read import read

MICRO = ["data=digits", "model=micro", "data.img_size=16", "patch=4", "batch_size=32", "limit_batches=4"]


def flipped(path: Path, byte: int, bit: int) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as file:
        file.seek(byte)
        [value] = file.read(1)
        file.seek(byte)
        file.write(bytes([value ^ (1 << bit)]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run that keeps both checkpoints."""
    out_dir = tmp_path_factory.mktemp("trained")
    run(out_dir, *MICRO, "epochs=2")
    return out_dir


@pytest.fixture
def ckpt(trained, tmp_path) -> Path:
    """A copy of best.ckpt that a test may damage."""
    return Path(shutil.copy(trained / "best.ckpt", tmp_path / "best.ckpt"))


@pytest.mark.promise("a bit flips at any place of a checkpoint", "The checkpoint is not read, and is named")
def test_every_flipped_bit_of_every_region_is_found(ckpt, record_property):
    size, draw = ckpt.stat().st_size, np.random.default_rng(0)
    places = [0, 1, size - 1, size - LENGTH, size - LENGTH - 1, *map(int, draw.integers(0, size, 300))]
    record_property("trials", len(places))
    for place in places:
        bit = int(draw.integers(8))
        flipped(ckpt, place, bit)
        with pytest.raises(Damaged, match=r"best\.ckpt is damaged"):
            read_checkpoint(ckpt)
        flipped(ckpt, place, bit)
    assert read_checkpoint(ckpt)["global_step"] > 0


@pytest.mark.promise("a checkpoint is cut, zeroed or appended to", "It is not read, and is named")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_cut_file_a_zeroed_page_and_what_was_appended_are_found(ckpt, share, record_property):
    record_property("trials", 3)
    whole = ckpt.read_bytes()
    place = int(share * len(whole))
    for content in (whole[:place], whole[:place] + bytes(4096) + whole[place + 4096 :], whole + b"x"):
        ckpt.write_bytes(content)
        with pytest.raises(Damaged):
            read_checkpoint(ckpt)


def test_what_was_not_written_by_us_is_no_checkpoint_of_ours_and_weights_of_others_are_read(ckpt, tmp_path):
    torch.save(read_checkpoint(ckpt), tmp_path / "bare.ckpt")
    with pytest.raises(Damaged, match="the digest at its end is missing"):
        read_checkpoint(tmp_path / "bare.ckpt")
    assert torch.load(ckpt, weights_only=True)["global_step"] > 0, "torch reads a sealed file"
    flipped(ckpt, ckpt.stat().st_size // 2, 3)  # in the weights, which torch does not check
    with pytest.raises(ValueError, match="damaged"):
        read(str(ckpt), (4, 4))


def test_a_file_that_is_not_finished_does_not_appear(tmp_path):
    def write_half() -> None:
        with sealed_file(tmp_path / "x") as file:
            file.write(b"half")
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_half()
    assert list(tmp_path.iterdir()) == []
    with sealed_file(tmp_path / "x") as file:
        file.write(b"whole")
    check_seal(tmp_path / "x")


def cut_after(out_dir: Path, epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train a run until this number of its four epochs is validated, then end it with SIGTERM."""
    original = Meter.on_validation_end

    def on_validation_end(self, trainer, *args):
        if trainer.global_step == 4 * epochs:
            signal.raise_signal(signal.SIGTERM)
        original(self, trainer, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Meter, "on_validation_end", on_validation_end)
        with pytest.raises(SystemExit):
            run(out_dir, *MICRO, "epochs=4")


def test_a_run_goes_on_from_the_checkpoint_before_where_the_last_is_damaged(tmp_path, monkeypatch, capsys):
    whole = run(tmp_path / "whole", *MICRO, "epochs=4")["result"]
    assert not (tmp_path / "whole" / PREVIOUS).exists(), "a finished run does not need it"
    cut = tmp_path / "cut"
    cut_after(cut, 3, monkeypatch)
    assert read_checkpoint(cut / "last.ckpt")["global_step"] == 12
    assert read_checkpoint(cut / PREVIOUS)["global_step"] == 8
    flipped(cut / "last.ckpt", 4000, 2)
    again = run(cut, *MICRO, "epochs=4")["result"]
    captured = capsys.readouterr()
    assert "last.ckpt is damaged" in captured.out + captured.err
    assert f"going on from the one before, {cut / PREVIOUS}" in captured.out + captured.err
    for name in ("test/acc", "test/loss", "val/acc"):
        assert again[name] == whole[name]


def test_a_save_that_was_cut_off_after_its_first_name_leaves_no_further_one(ckpt, tmp_path):
    """last.ckpt and before.ckpt are the same file when a checkpoint is saved after a kill at this point."""
    last = ckpt.rename(tmp_path / "last.ckpt")
    os.link(last, tmp_path / PREVIOUS)
    AtomicCheckpoint().save_checkpoint(read_checkpoint(last), last)
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, "last.ckpt"]


def test_a_damaged_checkpoint_with_none_before_is_named_with_the_cure(tmp_path, monkeypatch):
    cut_after(tmp_path, 1, monkeypatch)
    flipped(tmp_path / "last.ckpt", 4000, 2)
    (tmp_path / PREVIOUS).unlink(missing_ok=True)
    with pytest.raises((Refused, ValueError), match=r"last\.ckpt is damaged.*rerun=true trains the run anew"):
        train_in(configure(*MICRO, "epochs=4", "trainer=cpu", "logger=csv"), tmp_path)


@pytest.mark.promise("a checkpoint lacks weights, or has others", "It is refused, with their names")
def test_weights_are_those_of_the_network_all_of_them(trained, tmp_path, record_property):
    record_property("trials", 3)
    checkpoint = read_checkpoint(trained / "best.ckpt")
    state = checkpoint["state_dict"]
    lacking = {name: w for name, w in state.items() if not name.endswith("head.weight")}
    for weights, said in (
        (lacking, r"has no weights for net\.head\.weight"),
        (state | {"net.x": torch.ones(1)}, "net.x"),
    ):
        path = tmp_path / "other.ckpt"
        AtomicCheckpoint().save_checkpoint(checkpoint | {"state_dict": weights}, path)
        with pytest.raises(ValueError, match=rf"^ckpt=.*other\.ckpt: the checkpoint .*{said}"):
            reopen(path, Machine(configure("trainer=cpu").trainer, 0, 0.0, None))
    layer = nn.Linear(2, 2)
    load_weights(layer, {"weight": torch.ones(2, 2), "bias": torch.zeros(2)})
    assert layer.weight.eq(1).all()
    with pytest.raises(ValueError, match="has no weights for bias"):
        load_weights(layer, {"weight": torch.ones(2, 2)})


class Runs:
    """A pickle that calls a function with arguments when Python loads it."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


HOSTILE = {
    "os.system": lambda mark: Runs(os.system, f"touch {mark}"),
    "subprocess": lambda mark: Runs(subprocess.check_output, ["touch", str(mark)]),
    "eval": lambda mark: Runs(eval, f"open({str(mark)!r}, 'w').close()"),
    "exec": lambda mark: Runs(exec, f"open({str(mark)!r}, 'w').close()"),
    "open": lambda mark: Runs(open, str(mark), "w"),
    "mkdir": lambda mark: Runs(os.mkdir, str(mark)),
    "write_text": lambda mark: Runs(Path.write_text, mark, ""),
    "getattr": lambda mark: Runs(getattr, "", "join"),
    "import": lambda mark: Runs(__import__, "antigravity"),
    "shutil": lambda mark: Runs(shutil.copyfile, __file__, str(mark)),
    "torch.load": lambda mark: Runs(torch.load, str(mark)),
    "partial": lambda mark: functools.partial(os.mkdir, str(mark)),
    "module": lambda mark: nn.Linear(2, 2),
    "path": lambda mark: mark,
}


@pytest.mark.promise(
    "a checkpoint holds a pickle that runs code, with a digest that fits",
    "Nothing runs, and the file is refused",
)
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("place", ["state_dict", "patchbench", "callbacks"])
def test_no_pickle_in_a_checkpoint_runs_code(ckpt, tmp_path, kind, place):
    """The author of a file can also write a correct digest."""
    mark = tmp_path / "mark"
    content = read_checkpoint(ckpt)
    content[place] = {**content.get(place, {}), "x": HOSTILE[kind](mark)}
    AtomicCheckpoint().save_checkpoint(content, ckpt)
    with pytest.raises(ValueError, match=r"best\.ckpt holds more than tensors and plain values.*it is not read$"):
        read_checkpoint(ckpt)
    assert not mark.exists()


@pytest.mark.promise("a checkpoint is an archive that unpacks to any size", "It is refused within seconds")
@pytest.mark.parametrize("archive", [True, False], ids=["compressed", "no archive"])
def test_an_archive_that_may_unpack_to_any_size_is_not_read(tmp_path, archive):
    bomb = tmp_path / "bomb.ckpt"
    with sealed_file(bomb) as file:
        content = io.BytesIO()
        if archive:
            with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
                packed.writestr("archive/data.pkl", bytes(200 * 2**20))
        file.write(content.getvalue() or b"\x80\x02}.")
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"bomb\.ckpt (is a compressed archive|cannot be read as a checkpoint)"):
        read_checkpoint(bomb)
    assert time.monotonic() - began < 5


def test_a_finished_run_whose_weights_are_gone_or_damaged_is_still_shown(tmp_path, capsys):
    run(tmp_path, *MICRO, "epochs=1")
    (tmp_path / "best.ckpt").unlink()
    flipped(tmp_path / "last.ckpt", 1000, 1)
    train_in(configure("trainer=cpu", "logger=csv", *MICRO, "epochs=1"), tmp_path)
    assert "This run was done before" in capsys.readouterr().out


def test_where_the_last_weights_are_tested_and_damaged_the_figures_are_shown(tmp_path, capsys):
    arguments = [*MICRO, "trainer=cpu", "logger=csv", "epochs=1", "tested=last", "keep_checkpoints=tested"]
    train_in(configure(*arguments), tmp_path)
    flipped(tmp_path / "last.ckpt", 1000, 1)
    train_in(configure(*arguments), tmp_path)
    printed = capsys.readouterr().out
    assert "last.ckpt is damaged" in printed
    assert "This run was done before" in printed


@pytest.mark.promise("weights of another run lie in the folder of a finished one", "They answer no question about it")
@pytest.mark.parametrize("asked", ["eval.shuffle=[patches]", "analyze=true"])
def test_weights_of_another_run_add_no_figures_to_a_record(tmp_path, asked):
    for seed in (0, 1):
        run(tmp_path / str(seed), *MICRO, "epochs=1", f"seed={seed}")
    before = (tmp_path / "0" / "run.json").read_bytes()
    shutil.copy(tmp_path / "1" / "best.ckpt", tmp_path / "0" / "best.ckpt")
    with pytest.raises(Refused, match=r"best\.ckpt is of another run \(seed=1 there, 0 here\): rerun=true"):
        run(tmp_path / "0", *MICRO, "epochs=1", "seed=0", asked)
    assert (tmp_path / "0" / "run.json").read_bytes() == before


def test_a_training_anew_that_comes_to_no_checkpoint_leaves_the_finished_run(tmp_path, monkeypatch, capsys):
    """The new training fails, is killed, or is refused."""
    done = run(tmp_path, *MICRO, "epochs=1")
    with monkeypatch.context() as patch:
        poison(patch, 0)
        with pytest.raises(CellFailed):
            run(tmp_path, *MICRO, "epochs=1", "rerun=true")
    assert read_record(tmp_path / "run.json") == done
    assert not (tmp_path / "earlier").exists()
    (tmp_path / "earlier").mkdir()
    for name in ("run.json", "best.ckpt", "metrics.csv"):
        (tmp_path / name).rename(tmp_path / "earlier" / name)
    (tmp_path / "last.ckpt").unlink()
    (tmp_path / "metrics.csv").write_text("step,name,value\n")
    run(tmp_path, *MICRO, "epochs=1")
    assert "This run was done before" in capsys.readouterr().out
    assert read_record(tmp_path / "run.json") == done
    with pytest.raises(Refused, match=r"ckpt=.*best\.ckpt is of the run that rerun=true replaces: move it out of"):
        run(tmp_path, *MICRO, "epochs=1", "rerun=true", f"ckpt={tmp_path / 'best.ckpt'}")
    assert read_record(tmp_path / "run.json") == done


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_weights_that_are_gone_before_they_are_tested_are_refused_with_a_cure(tmp_path, monkeypatch, damage):
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("patchbench.commands.train.test", cut)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, *MICRO, "epochs=1")
    flipped(tmp_path / "best.ckpt", 1000, 1) if damage == "damaged" else (tmp_path / "best.ckpt").unlink()
    with pytest.raises(Refused, match=r"best\.ckpt.*rerun=true trains the run again"):
        run(tmp_path, *MICRO, "epochs=1")


def test_a_finished_run_is_shown_where_nothing_can_be_written(tmp_path, monkeypatch, capsys):
    run(tmp_path, *MICRO, "epochs=1")
    original = os.open

    def read_only(path, flags, *mode, **more):
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT) and str(path).startswith(str(tmp_path)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return original(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", read_only)
    run(tmp_path, *MICRO, "epochs=1")
    assert "This run was done before" in capsys.readouterr().out


def test_a_full_disk_is_named_in_one_line_and_the_run_goes_on_when_there_is_room(tmp_path):
    """A limit on the size of a file makes a write fail as a full disk does."""
    arguments = [*MICRO, "trainer=cpu", "logger=csv", "epochs=2", "runs_dir=runs"]
    limited = command_in(tmp_path, "train.py", *arguments, LIMIT_FSIZE=str(100 * 1024))
    assert limited.returncode == 1, limited.stderr
    [line] = [line for line in limited.stderr.splitlines() if line.startswith("error: ")]
    assert "best.ckpt cannot be written" in line
    assert "repeat the command to resume" in line
    assert "Traceback" not in limited.stderr
    assert not list(tmp_path.rglob("*.part-*"))
    assert command_in(tmp_path, "train.py", *arguments).returncode == 0
