"""The identity of a run: which changes alter it, and which do not."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from support import CONF, MICRO, ROOT, composed_once, configure, generated, options, record, run, some, train_in

from patchbench.commands import folder
from patchbench.commands.evaluate import evaluate
from patchbench.commands.reopen import Machine
from patchbench.config import identity
from patchbench.config.compose import composed
from patchbench.config.errors import Refused
from patchbench.config.identity import (
    BASELINE,
    BUILDING,
    GROUPS,
    READERS,
    baseline,
    compared,
    has_eval_results,
    identity_of,
    leaves,
    reads,
)
from patchbench.config.knobs import knobs as known_knobs
from patchbench.config.names import SWEEP, run_name
from patchbench.config.origin import changes, origin_of, restored
from patchbench.config.typed import refuse_lists_of_options, refuse_options_of_the_other_mode
from patchbench.config.unread import remarks_on_sweep, remarks_on_unread, unread
from patchbench.runs import provenance, records
from patchbench.runs.record import to_json
from patchbench.sweep.cell import Cell
from patchbench.sweep.check import compose_cell
from patchbench.sweep.launch import mark_done_and_duplicates
from patchbench.train.checkpoint import AtomicCheckpoint

GOLDEN = Path(__file__).parent / "golden" / "identities.txt"


def identified(*overrides: str) -> str:
    cfg = configure(*overrides)
    return identity_of(cfg, cfg.hydra.runtime.choices)


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    """Clear the caches of defaults that a test may have changed."""
    forget()
    yield
    forget()


def forget() -> None:
    identity.DEFAULTS.clear()
    identity.content_of.cache_clear()
    composed_once.cache_clear()
    known_knobs.cache_clear()


def test_identities_of_twenty_six_command_lines_stay_as_they_are():
    lines = [line.split("  ", 1) for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 26
    assert {line: identified(*line.split()) for _, line in lines} == {line: known for known, line in lines}


@pytest.mark.parametrize("name", some(generated(), "quadrant"))
def test_a_generated_set_of_each_runs_own_images_is_another_set_than_one_for_all(name):
    new, fixed, old = (
        identified(f"data={name}", *knob) for knob in ([], ["data.eval_seed=0"], ["data.eval_seed=null"])
    )
    assert len({new, fixed, old}) == 3
    seeds = [configure(f"data={name}", f"seed={seed}") for seed in (1, 2)]
    one, two = (compared(cfg, cfg.hydra.runtime.choices) for cfg in seeds)
    assert {path for path in one if one[path] != two[path]} == {"seed"}, "a report puts both seeds in one arm"
    cells = [compose_cell([f"data={name}", f"seed={seed}"], seed) for seed in (1, 2)]
    assert cells[0].all_but_seed == cells[1].all_but_seed, "a sweep checks one of them"


def test_the_seed_of_a_run_is_read_where_the_images_have_a_seed_of_their_own():
    given = ["data=quadrant", "seed=3", "data.eval_seed=0"]
    cfg = configure(*given)
    assert unread(cfg, cfg.hydra.runtime.choices, given) == {}
    assert composed(["data=quadrant", "seed=3", "out=x"], "prepare").data.eval_seed == 3


@pytest.mark.slow
def test_a_checkpoint_is_tested_on_the_images_of_its_own_seed(tmp_path):
    arguments = ["data=quadrant", "data.test_size=200", "model=micro", "patch=4", "limit_batches=7", "epochs=1"]
    found = {}
    for name, knobs in {"3": ["seed=3"], "4": ["seed=3", "data.eval_seed=4"], "old": ["data.eval_seed=null"]}.items():
        before = run(tmp_path / name, *arguments, *knobs)
        cpu = configure("trainer=cpu")
        path = tmp_path / name / "best.ckpt"
        if name == "old":  # a checkpoint of the time before there was the knob
            checkpoint = torch.load(path, weights_only=True)
            del (
                checkpoint["patchbench"]["config"]["data"]["eval_seed"],
                checkpoint["patchbench"]["compared"]["data.eval_seed"],
            )
            AtomicCheckpoint().save_checkpoint(checkpoint, path)
        again = evaluate(path, Machine(cpu.trainer, 0, 0.2), cpu.eval)
        assert again["result"]["test/loss"] == before["result"]["test/loss"]
        found[name] = before["result"]["test/loss"]
    assert found["3"] != found["4"], "one network, other images"


def listed() -> dict[str, dict]:
    """Return the baseline of the present options, as if none were listed yet."""
    cfg = composed([])
    tree = OmegaConf.to_container(cfg, resolve=False)
    top = {name: value for name, value in baseline()["train"].items() if name not in GROUPS}
    found = {
        "train": {group: cfg.hydra.runtime.choices[group] for group in GROUPS} | {name: tree[name] for name in top}
    }
    for group in GROUPS:
        for option in options(group):
            part = OmegaConf.to_container(composed([f"{group}={option}"]), resolve=False)[group]
            knobs = {path: value for path, value in leaves(part, group) if path.rpartition(".")[2] not in BUILDING}
            found[f"{group}/{option}"] = knobs
    return found


@pytest.mark.slow
def test_the_baseline_knows_the_options_that_are_shipped(request):
    """`--regenerate` lists new options and knobs, and does not change listed ones."""
    known, today = baseline(), listed()
    if request.config.getoption("--regenerate"):
        merged = {option: knobs | known.get(option, {}) for option, knobs in today.items()}
        lines = ",\n".join(f"{json.dumps(option)}: {json.dumps(knobs)}" for option, knobs in merged.items())
        BASELINE.write_text(f"{{\n{lines}\n}}\n")
        identity.baseline.cache_clear()
        known = baseline()
    assert set(known) <= set(today), "an option was removed or renamed: its runs cannot be made again"


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A copy of conf/ that a test may change."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    for module in ("compose", "mistakes", "typed", "knobs", "trusted"):
        monkeypatch.setattr(f"patchbench.config.{module}.CONF", conf)
    return conf


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_class_that_moves_changes_no_identity_and_no_checkpoint(house, tmp_path, monkeypatch):
    before = run(tmp_path / "run", *MICRO, "epochs=1")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copy(ROOT / "src/patchbench/embed/conv.py", moved / "moved_embedding.py")
    monkeypatch.syspath_prepend(moved)
    edit(house / "embed/conv.yaml", "patchbench.embed.conv.ConvEmbed", "moved_embedding.ConvEmbed")
    forget()
    assert identified(*MICRO, "epochs=1") == before["identity"]
    cpu = configure("trainer=cpu")
    again = evaluate(tmp_path / "run" / "best.ckpt", Machine(cpu.trainer, 0, 0.2), cpu.eval)
    assert again["result"]["test/loss"] == before["result"]["test/loss"]
    code = origin_of(cfg := configure(*MICRO, "epochs=1"), cfg.hydra.runtime.choices)["code"]
    assert "moved_embedding" in code
    assert provenance.changed(before["code"], code) == [], "the code itself is the same"


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("optim/adamw.yaml", "ema: null"),
        ("optim/adamw.yaml", "eps: 1.0e-8"),
        ("model/tiny.yaml", "exact: true"),
        ("budget/epochs.yaml", "grace: [1, 2]"),
    ],
)
def test_a_new_knob_at_its_default_changes_nothing(house, tmp_path, file, line):
    before = run(tmp_path / "run", *MICRO, "epochs=1") if "ema" in line else None
    name = identified("embed=conv")
    with (house / file).open("a") as text:
        text.write(f"{line}\n")
    forget()
    assert identified("embed=conv") == name
    knob = f"{file.split('/')[0]}.{line.split(':')[0]}"
    assert identified("embed=conv", f"{knob}=7") != name
    if before:
        assert identified(*MICRO, "epochs=1") == before["identity"]
        origin = torch.load(tmp_path / "run" / "best.ckpt", weights_only=True)["patchbench"]
        assert restored(origin).optim.ema is None
        cpu = configure("trainer=cpu")
        again = evaluate(tmp_path / "run" / "best.ckpt", Machine(cpu.trainer, 0, 0.2), cpu.eval)
        assert again["result"]["test/acc"] == before["result"]["test/acc"]


def test_a_default_that_changes_makes_other_runs_and_the_old_value_the_old_ones(house):
    name = identified("embed=overlap")
    edit(house / "embed/overlap.yaml", "stride: 2", "stride: 3")
    forget()
    assert identified("embed=overlap") != name
    assert identified("embed=overlap", "embed.stride=2") == name
    edit(house / "optim/adamw.yaml", "lr: 5e-4", "lr: 6e-4")
    forget()
    assert identified("embed=overlap", "embed.stride=2") != name


def changed_by(house: Path, option: str, old: str, new: str, *overrides: str) -> list[str]:
    """Return the changes in the origin of a run after an edit of an option; empty if the identity changes."""

    def origin() -> dict:
        forget()
        cfg = configure(*overrides)
        return origin_of(cfg, cfg.hydra.runtime.choices)

    before = origin()
    edit(house / option, old, new)
    after = origin()
    assert after["identity"] == before["identity"]
    return changes(before, after)


def test_what_changes_behind_an_equal_identity_is_listed(house):
    knob = house / "optim/adamw.yaml"
    knob.write_text(knob.read_text() + "eps: 1.0e-8\n")
    assert changed_by(house, "optim/adamw.yaml", "eps: 1.0e-8", "eps: 0.1") == ["optim.eps=1e-08 then, 0.1 now"]
    adam = changed_by(house, "optim/adamw.yaml", "torch.optim.AdamW", "torch.optim.Adam")
    assert adam == ["optim.optimizer._target_=torch.optim.AdamW then, torch.optim.Adam now"]


def test_interpolations_of_an_own_option_count_by_their_values(house, monkeypatch):
    own = house / "optim" / "mine.yaml"
    own.write_text((house / "optim" / "adamw.yaml").read_text().replace("lr: 5e-4", "lr: ${oc.decode:${oc.env:LR}}"))
    found = []
    for rate in ("0.1", "0.9"):
        monkeypatch.setenv("LR", rate)
        found.append(identified("optim=mine"))
    assert found[0] != found[1]


def test_a_file_of_weights_counts_by_its_content(tmp_path):
    one, other, copy = (tmp_path / name for name in ("one.ckpt", "other.ckpt", "copy.ckpt"))
    one.write_bytes(b"1"), other.write_bytes(b"2"), copy.write_bytes(b"1")
    assert identified(f"model.init_from={one}") == identified(f"model.init_from={copy}")
    assert identified(f"model.init_from={one}") != identified(f"model.init_from={other}")


@pytest.mark.parametrize(
    ("off", "on"),
    [
        ("freeze=null", "freeze=trunk"),
        ("model.layer_scale=null", "model.layer_scale=1e-5"),
        ("optim.loss=cross_entropy", "optim.loss=bce"),
        ("optim.target_threshold=null", "optim.target_threshold=0.2"),
        ("trainer.max_time=null", "trainer.max_time=00:12:00:00"),
        ("trainer.limit_val_batches=null", "trainer.limit_val_batches=8"),
    ],
)
def test_a_knob_that_is_off_changes_nothing_and_one_that_is_on_makes_another_run(off, on):
    assert identified(off) == identified() != identified(on)


def test_an_own_option_is_another_run_when_its_values_change_and_the_same_with_a_knob_that_is_off(house):
    own = house / "embed" / "mine.yaml"
    shutil.copy(house / "embed" / "overlap.yaml", own)
    name = identified("embed=mine")
    own.write_text(own.read_text() + "extra: null\n")
    forget()
    assert identified("embed=mine") == name
    edit(own, "stride: 2", "stride: 3")
    forget()
    assert identified("embed=mine") != name


def test_values_of_interpolations_count(monkeypatch):
    monkeypatch.setenv("BS", "32")
    assert identified("batch_size=${oc.env:BS}") == identified("batch_size=32")
    monkeypatch.setenv("BS", "64")
    assert identified("batch_size=${oc.env:BS}") == identified("batch_size=64")
    assert identified("optim.lr='${oc.decode:${oc.env:BS}}'") == identified("optim.lr=64")
    assert identified("batch_size=${log_every}", "log_every=5") != identified("batch_size=${log_every}", "log_every=50")


def test_a_target_given_on_the_command_line_counts():
    assert identified("optim.optimizer._target_=torch.optim.Adam") != identified()


def test_how_and_where_a_run_is_executed_changes_nothing():
    for change in (
        "trainer=ddp",
        "logger=none",
        "workers=3",
        "log_every=7",
        "data_dir=/elsewhere",
        "runs_dir=/elsewhere",
        "allow_cost=true",
        "trainer.accumulate=2",
        "compile=true",
        "eval=robust",
        "analyze=true",
    ):
        assert identified(change) == identified(), change
    assert identified("data=cifar10", "data_dir=/a") == identified("data=cifar10", "data.root=/b")


def images(folder: Path, shade: int = 0) -> Path:
    from PIL import Image

    for split in ("train", "val"):
        for label in ("cat", "dog"):
            where = folder / split / label
            where.mkdir(parents=True)
            for i in range(8):
                Image.effect_noise((16, 16), 20 + shade + i).convert("RGB").save(where / f"{i}.png")
    return folder


def test_where_data_lie_is_no_part_of_a_run_and_two_folders_are_two_levels(tmp_path):
    one, other = images(tmp_path / "a" / "pets"), images(tmp_path / "b" / "wild", shade=50)
    copy = shutil.copytree(one, tmp_path / "c" / "pets")

    def folder(root: Path | str, *overrides: str) -> tuple[str, str]:
        identity.content_of.cache_clear()
        cfg = configure("data=imagefolder", f"data.root='{root}'", "patch=8", *overrides)
        origin = origin_of(cfg, cfg.hydra.runtime.choices)
        return origin["identity"], origin["factors"]["data"]

    assert folder(one) == folder(f"{one}/") == folder(copy)
    assert folder(one)[1] == "imagefolder-pets"
    assert folder(other) != folder(one)
    assert folder(other)[1] == "imagefolder-wild"
    link = tmp_path / "link"
    link.symlink_to(one)
    assert folder(link) == folder(one), "called by the folder that it leads to"
    runs = tmp_path / "runs"
    renamed = one.rename(tmp_path / "a" / "animals")
    (runs / f"earlier_name_{folder(renamed)[0]}").mkdir(parents=True)
    cfg = configure("data=imagefolder", f"data.root='{renamed}'", "patch=8", f"runs_dir={runs}")
    assert run_name(_root_=cfg).startswith("earlier_name_"), "a run keeps its folder when its data get another name"
    renamed.rename(one)
    (copy / "train" / "cat" / "0.png").rename(copy / "train" / "dog" / "zero.png")
    assert folder(copy)[0] != folder(one)[0], "an image has another label"


def test_the_fingerprint_of_a_folder_is_computed_once_by_a_command(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(identity, "fingerprint", lambda root: read.append(root) or "0123abcd")
    cfg = configure("data=imagefolder", f"data.root='{images(tmp_path / 'pets')}'", "patch=8")
    run_name(_root_=cfg)
    origin_of(cfg, cfg.hydra.runtime.choices)
    assert len(read) == 1


@pytest.mark.slow
def test_moved_data_neither_retrain_nor_break_further_views(tmp_path, capsys):
    data = images(tmp_path / "pets")
    small = [*MICRO, "epochs=1", "batch_size=4", "data=imagefolder", "data.val_size=4", "logger=none"]
    done = run_in(tmp_path, small, data)
    (tmp_path / "elsewhere").mkdir()
    moved = data.rename(tmp_path / "elsewhere" / "pets")
    again = run_in(tmp_path, [*small, "eval.shuffle=[pixels]"], moved)
    assert "done before" in capsys.readouterr().out
    assert again["identity"] == done["identity"]
    assert again["environment"] == done["environment"], "nothing was trained again"
    assert "test/shuffled_pixels/acc" in again["result"]


def run_in(tmp_path: Path, overrides: list[str], data: Path) -> dict:
    cfg = configure(*overrides, f"data.root='{data}'", f"runs_dir={tmp_path}/runs", "data.img_size=16")
    train_in(cfg, tmp_path / "runs" / run_name(_root_=cfg))
    return record(tmp_path / "runs")


def test_model_and_optimiser_are_named_where_they_are_not_the_usual_ones():
    assert run_name(_root_=configure()).startswith("conv-16_learned_digits_s0_")
    assert run_name(_root_=configure("model=micro")).startswith("micro_conv-16_learned_digits_s0_")
    assert run_name(_root_=configure("augment=light")).startswith("conv-16_learned_digits_light_s0_")


# Code is provenance.


MINE = """
import torch
from mine_inner import scale


class Mine:
    def f(self):
        return scale(1)
"""
EXPLAINED = """
import torch  # why
from mine_inner import scale
class Mine:
    '''Docs.'''
    def f(self):

        return scale(1)  # once
"""


def test_digests_of_code_ignore_comments_docstrings_and_imports_and_follow_imports(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_inner.py").write_text("def scale(x):\n    return 2 * x\n")
    mine = tmp_path / "mine_outer.py"
    mine.write_text(MINE)
    first = provenance.code(["mine_outer.Mine"])
    assert set(first) == {"mine_outer", "mine_inner"}
    mine.write_text(EXPLAINED)
    assert provenance.changed(first, provenance.code(["mine_outer.Mine"])) == []
    (tmp_path / "mine_inner.py").write_text("def scale(x):\n    return 3 * x\n")
    assert provenance.changed(first, provenance.code(["mine_outer.Mine"])) == ["mine_inner"]
    mine.write_text(MINE.replace("import torch", "from torch import relu"))
    assert "mine_outer" in provenance.changed(first, provenance.code(["mine_outer.Mine"])), "another function"


def test_relative_imports_and_folders_without_init_are_followed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_folder").mkdir()
    (tmp_path / "mine_folder" / "inner.py").write_text("SCALE = 2\n")
    (tmp_path / "mine_folder" / "outer.py").write_text("from .inner import SCALE\nclass Mine:\n    pass\n")
    assert set(provenance.code(["mine_folder.outer.Mine"])) == {"mine_folder.outer", "mine_folder.inner"}


def test_the_code_of_a_run_is_its_options_and_its_trunk():
    cfg = configure("embed=stem", "pos=rope")
    code = origin_of(cfg, cfg.hydra.runtime.choices)["code"]
    inside = {"patchbench.embed.stem", "patchbench.pos.rope", "patchbench.nets.vit", "patchbench.train.task"}
    assert inside | {"patchbench.data.order", "patchbench.data.draws", "patchbench.train.schedule"} <= set(code)
    assert not {name for name in code if "pages" in name or "alibi" in name or name.startswith("torch")}


def test_a_run_of_other_code_says_so_and_a_refused_rerun_removes_nothing(tmp_path, capsys, monkeypatch):
    done = run(tmp_path / "run", *MICRO, "epochs=1")
    run(tmp_path / "run", *MICRO, "epochs=1")
    assert "This run was done before; rerun=true trains it again." in capsys.readouterr().out
    altered = done | {"code": done["code"] | {"patchbench.embed.conv": "00000000"}}
    (tmp_path / "run" / "run.json").write_text(to_json(altered))
    run(tmp_path / "run", *MICRO, "epochs=1")
    printed = capsys.readouterr().out
    assert "The figures below are of other code: patchbench.embed.conv changed since" in printed
    assert "by other code than today; rerun=true trains it again" in printed
    files = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(Refused, match="more than max_gmacs=1e-09"):
        run(tmp_path / "run", *MICRO, "epochs=1", "rerun=true", "max_gmacs=1e-9")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == files
    anew = run(tmp_path / "run", *MICRO, "epochs=1", "rerun=true")
    assert anew["code"] == done["code"]
    assert anew["result"]["test/loss"] == done["result"]["test/loss"]
    assert not (tmp_path / "run" / "earlier").exists()


def test_a_process_killed_while_it_drops_the_earlier_run_leaves_the_new_one_as_it_is(tmp_path, monkeypatch):
    run(tmp_path / "run", *MICRO, "epochs=1")
    removed = []

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == folder.EARLIER and removed:
            raise KeyboardInterrupt
        removed.append(path)
        path.unlink_(missing_ok)

    monkeypatch.setattr(Path, "unlink_", Path.unlink, raising=False)
    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path / "run", *MICRO, "epochs=1", "rerun=true")
    monkeypatch.undo()
    assert (tmp_path / "run" / folder.EARLIER / "run.json").exists(), "the record goes last"
    new = (tmp_path / "run" / "best.ckpt").read_bytes()
    run(tmp_path / "run", *MICRO, "epochs=1")
    assert (tmp_path / "run" / "best.ckpt").read_bytes() == new
    assert not (tmp_path / "run" / folder.EARLIER).exists()


def test_a_folder_that_holds_another_run_is_refused_with_the_difference(tmp_path):
    run(tmp_path / "run", *MICRO, "epochs=1")
    with pytest.raises(Refused, match=r"holds another run \(optim\.lr=0\.0005 there, 0\.01 here\)"):
        run(tmp_path / "run", *MICRO, "epochs=1", "optim.lr=1e-2")


def test_another_run_is_not_replaced_and_a_record_that_cannot_be_read_is_named(tmp_path):
    run(tmp_path / "run", *MICRO, "epochs=1")
    with pytest.raises(Refused, match="holds another run"):
        run(tmp_path / "run", *MICRO, "epochs=1", "optim.lr=1e-2", "rerun=true")
    path = tmp_path / "run" / "run.json"
    whole = path.read_text()
    for text, said in ((whole[:100], "is damaged"), ("[]", "it lacks all of it"), ("{}", "it lacks code")):
        path.write_text(text)
        with pytest.raises(Refused, match=said):
            run(tmp_path / "run", *MICRO, "epochs=1")
    assert run(tmp_path / "run", *MICRO, "epochs=1", "rerun=true")["result"]["test/loss"]


@pytest.mark.slow
def test_cells_with_values_and_folders_of_their_own_run_and_two_in_one_folder_are_refused(command, tmp_path):
    folders = ["hydra.sweep.subdir=p${patch}", "seed=${hydra:job.num}", "hydra.launcher.on_invalid=skip"]
    done = command("train.py", "-m", *MICRO, "epochs=1", "logger=none", "patch=4,8", "embed=conv,linear", *folders)
    assert done.returncode == 0, done.stderr
    for patch in (4, 8):
        cell = f"its folder runs/p{patch} is that of the cell patch={patch} embed=conv, which is another run"
        assert cell in done.stderr
    assert "4 cells: 2 done, 2 invalid" in done.stdout
    made = {path.parent.name: json.loads(path.read_text())["factors"] for path in tmp_path.rglob("run.json")}
    assert {name: (each["embed"], each["patch"], each["seed"]) for name, each in made.items()} == {
        "p4": ("conv", 4, 0),
        "p8": ("conv", 8, 2),
    }


@pytest.mark.parametrize(
    ("subdir", "folder"),
    [
        ("s${seed}", "runs/s3"),
        ("${hydra.job.num}", "runs/7"),
        ("${hydra:job.num}", "runs/7"),
        ("${hydra.job.override_dirname}", "runs/embed=linear,seed=3"),
    ],
)
def test_a_cell_has_the_folder_that_its_own_values_make(subdir, folder):
    cell = compose_cell(["embed=linear", "seed=3", f"hydra.sweep.subdir={subdir}"], 7)
    assert cell.folder == Path(folder)
    assert cell.origin["identity"] == identified("embed=linear", "seed=3")


def test_a_cell_refuses_a_folder_that_cannot_be_or_that_holds_another_run(tmp_path):
    assert "a name of 300 bytes" in compose_cell([f"hydra.sweep.subdir={'x' * 300}"], 0)
    run(tmp_path / "here", *MICRO, "epochs=1")
    place = [f"hydra.sweep.dir={tmp_path}", "hydra.sweep.subdir=here"]
    cells = [Cell([], "", number) for number in range(2)]
    for cell, rate in zip(cells, ("5e-4", "1e-2"), strict=True):
        cell.composed = compose_cell([*MICRO, "epochs=1", f"optim.lr={rate}", *place], cell.number)
        mark_done_and_duplicates([cell])
    assert [cell.state for cell in cells] == ["skipped", "invalid"]
    assert "holds another run (optim.lr=0.0005 there, 0.01 here)" in cells[1].error


def test_folders_of_one_name_are_told_apart_in_tables(tmp_path):
    done = run(tmp_path / "runs" / "one_00000001", *MICRO, "epochs=1")
    for i, content in enumerate(("aaaaaaaa", "bbbbbbbb")):
        done["factors"]["data"], done["compared"]["data.content"] = "imagefolder-pets", content
        folder = tmp_path / "runs" / f"two_0000000{i + 2}"
        folder.mkdir()
        (folder / "run.json").write_text(to_json(done))
    table = records.load(tmp_path / "runs")
    assert table["data"].tolist() == ["digits", "imagefolder-pets@aaaa", "imagefolder-pets@bbbb"]
    (folder / "run.json").write_text("{")
    assert records.load(tmp_path / "runs")["status"].tolist() == ["done", "done", "damaged"]


def test_the_record_says_how_it_was_made(tmp_path):
    done = run(tmp_path / "run", *MICRO, "epochs=1")
    execution = done["execution"]
    assert execution["started"] <= execution["ended"]
    assert execution["host"]
    assert execution["command"]
    assert {"torch", "torchvision", "numpy", "cuda", "driver"} <= set(done["environment"]["versions"])
    assert done["options"]["embed"] == "conv"
    assert done["options"]["pos"] == ["learned"]


def test_files_that_are_not_tracked_count_as_dirty(tmp_path, monkeypatch):
    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    assert provenance.commit() is None
    git("init", "-q")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "tracked.py").write_text("")
    (tmp_path / "experiments" / "overlap").mkdir(parents=True)
    (tmp_path / "experiments" / "overlap" / "runs.csv").write_text("")
    git("add", "-A")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first")
    commit = provenance.commit()
    assert len(commit) == 40
    (tmp_path / "notes.txt").write_text("")
    assert provenance.commit() == commit, "no code"
    (tmp_path / "experiments" / "overlap" / "runs.csv").write_text("a row")
    assert provenance.commit() == commit, "a study writes its results while it runs"
    (tmp_path / "src" / "mine.py").write_text("")
    assert provenance.commit() == f"{commit}-dirty"


@pytest.mark.parametrize("group", [group for group in sorted(GROUPS) if group != "pos"])
def test_a_list_of_options_is_refused(group):
    two = options(group)[:2]
    given = f"{group}=[{','.join(two)}]"
    with pytest.raises(Refused, match=re.escape(f"{given} names several options, and {group} takes one: to sweep")):
        refuse_lists_of_options(["seed=1", given])
    with pytest.raises(Refused, match=re.escape(f"train.py -m {group}={','.join(two)}")):
        refuse_lists_of_options([f"{given},{two[0]}"])
    refuse_lists_of_options([f"{group}={','.join(two)}", f"{group}=glob([{given[0]}*,{given[-2]}*])", "patch=[4,8],8"])
    refuse_lists_of_options(["pos=[learned,rope]", "pos=none,[learned,rope]"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "hydra/launcher=slurm seed=1",
            "hydra/launcher=slurm is an option of sweeps, which a single run does not read",
        ),
        ("hydra.launcher.jobs=2", "add -m, or leave it out"),
        ("hydra.sweep.subdir=a", "add -m, or leave it out"),
        ("-m hydra.run.dir=here seed=1,2", "use hydra.sweep.dir=here for the folder of all runs, or leave it out"),
    ],
)
def test_an_option_of_sweeps_in_a_single_run_is_refused_and_the_other_way_round(line, said):
    with pytest.raises(Refused, match=re.escape(said)):
        refuse_options_of_the_other_mode(line.split())
    other = line.removeprefix("-m ") if line.startswith("-m") else f"{line} --multirun"
    refuse_options_of_the_other_mode(other.split())
    refuse_options_of_the_other_mode([*line.removeprefix("-m ").split(), "--cfg", "job"])


@pytest.mark.parametrize("line", ["-m --cfg job", "--info --multirun", "seed=1,2 -m --cfg=hydra"])
def test_printing_a_configuration_is_refused_in_a_sweep(line):
    with pytest.raises(Refused, match="prints the configuration of one run: leave out -"):
        refuse_options_of_the_other_mode(line.split())


def test_a_patch_that_only_evaluation_reads_is_part_of_the_question(tmp_path):
    """A CNN reads no patch, so two patches are one run, but the evaluation shuffles patches of another size."""
    small = ["model=cnn", "data.img_size=16", "batch_size=32", "epochs=2", "optim.lr=1e-2", "eval.shuffle=[patches]"]
    done = [run(tmp_path, *small, f"patch={patch}") for patch in (4, 16)]
    assert done[0]["identity"] == done[1]["identity"]
    assert done[0]["environment"] == done[1]["environment"], "trained once"
    whole = done[1]["result"]
    assert whole["test/shuffled_patches/acc"] == pytest.approx(whole["test/acc"]), (
        "an image is one patch: nothing is shuffled"
    )
    assert done[0]["result"]["test/shuffled_patches/acc"] != whole["test/acc"]
    cfg = configure(*small, "patch=16")
    assert has_eval_results(json.loads((tmp_path / "run.json").read_text()), cfg)


def not_read(*given: str) -> dict[str, str]:
    cfg = configure(*given)
    return unread(cfg, cfg.hydra.runtime.choices, given)


@pytest.mark.parametrize("model", some(options("model"), "micro", "resnet"))
def test_the_options_that_a_network_does_not_read_are_known(model):
    given = [
        f"model={model}",
        "embed=linear",
        "embed.pad=true",
        "pos=rope",
        "residual=bfloat16",
        "seed=1",
        "optim.lr=1",
    ]
    cfg = configure(*given)
    expected = {
        o for o in given if o.split("=")[0].split(".")[0] in READERS and not reads(cfg, o.split("=")[0].split(".")[0])
    }
    assert not_read(*given) == dict.fromkeys(expected, f"model={model}")
    assert not_read(f"model={model}", "pos=none", "eval=robust", "epochs=3") == {}


@pytest.mark.parametrize(
    ("line", "option", "because"),
    [
        ("embed=overlap patch=8", "patch=8", "embed=overlap"),
        ("patch=8 embed.patch_size=4", "patch=8", "embed.patch_size=4"),
        ("budget=steps epochs=3", "epochs=3", "budget=steps"),
        ("epochs=2 epochs=5 budget.value=100", "epochs=5", "budget.value=100"),
        ("optim.lr=1e-3 optim.optimizer.lr=0.1", "optim.lr=1e-3", "optim.optimizer.lr=0.1"),
    ],
)
def test_an_option_is_not_read_where_another_stands_in_its_place(line, option, because, monkeypatch):
    assert not_read(*line.split()) == {option: because}
    cfg = configure(*line.split())
    arguments = cfg, cfg.hydra.runtime.choices, line.split()
    [remark] = remarks_on_unread(*arguments, in_sweep=True)
    assert remark == f"{option} is not read, because of {because}"
    monkeypatch.delenv(SWEEP, raising=False)
    if option != "patch=8":  # the default of eval.patch
        with pytest.raises(Refused, match=re.escape(f"{remark}: leave out one of the two")):
            remarks_on_unread(*arguments, in_sweep=False)
    assert not_read(*line.split()[-1:]) == {}


def test_a_sweep_remarks_on_what_some_cells_do_not_read_and_refuses_what_none_does():
    cells = [not_read(f"model={model}", f"embed={embed}") for model in ("micro", "cnn") for embed in ("conv", "linear")]
    line = ["model=micro,cnn", "embed=conv,linear"]
    assert remarks_on_sweep(cells, line, grid=True) == ["2 of 4 cells do not read embed, because of model=cnn"]
    with pytest.raises(
        Refused, match="embed=conv,linear is read by no cell of this sweep, because of model=cnn: leave"
    ):
        remarks_on_sweep(cells[2:], line, grid=True)
    assert remarks_on_sweep(cells[2:], line, grid=False) == ["2 of 2 cells do not read embed, because of model=cnn"]
    assert len(remarks_on_sweep(cells[2:], ["seed=1"], grid=True)) == 1, "a study brings it along"


def test_a_knob_that_is_no_more_is_refused_unless_it_changed_nothing(tmp_path):
    cfg = configure(*MICRO)
    origin = origin_of(cfg, cfg.hydra.runtime.choices)
    gone = origin | {"compared": origin["compared"] | {"embed.gone": 3}}
    gone["config"] = origin["config"] | {"embed": origin["config"]["embed"] | {"gone": 3}}
    with pytest.raises(ValueError, match=r"trained with embed\.gone=3, a knob that this version does not have"):
        restored(gone)
    assert compared(restored(origin), cfg.hydra.runtime.choices) == origin["compared"]
