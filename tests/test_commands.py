"""The commands as a user types them: real processes, the offline file of W&B, and errors in one line."""

import json
import subprocess
import sys
from collections.abc import Callable

import pandas as pd
import pytest
import torch
from support import ROOT, options, record, wandb_file

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_a_run_keeps_the_same_figures_in_wandb_csv_and_record(command, micro, tmp_path):
    done = command("train.py", *micro, "embed=linear", "pos=[learned,rope]", "trainer=cpu")
    assert done.returncode == 0, done.stderr
    assert "wandb sync runs/wandb/offline-run-" in done.stderr
    assert len(done.stderr.splitlines()) == 3, f"a line per epoch and one on how to sync, but: {done.stderr}"
    kept, sent = record(tmp_path), wandb_file(tmp_path / "runs")
    assert f"{kept['result']['test/acc']:.2%}" in done.stdout

    assert sent["exit_code"] == 0
    assert sent["display_name"] == "micro linear/4 learned+rope digits s0"
    assert sent["project"] == "patchbench"
    levels = {"embed": "linear", "patch": 4, "pos": "learned+rope", "data": "digits", "model": "micro", "seed": 0}
    assert {factor: sent["config"][factor] for factor in levels} == levels
    assert sent["config"]["model/grid"] == "4x4"
    assert sent["config"]["model/params"] == kept["result"]["model/params"]
    assert sent["config"]["config"]["optim"]["lr"] == kept["config"]["optim"]["lr"]
    assert sent["config"]["identity"] == kept["identity"]

    for name, value in kept["result"].items():
        if name == "model/grid":
            continue
        told = sent["summary"][name]
        assert (told["last"] if isinstance(told, dict) else told) == pytest.approx(value), name
    csv = pd.read_csv(next(tmp_path.rglob("metrics.csv")))
    rows = [(r["trainer/global_step"], n, v) for r in sent["rows"] for n, v in r.items() if n in set(csv["name"])]
    local = list(csv.itertuples(index=False, name=None))
    assert {(s, n): pytest.approx(v) for s, n, v in rows} == {(s, n): v for s, n, v in local}
    expected = ("train/loss", "train/grad_norm", "lr-AdamW", "val/acc", "throughput/images_per_s", "memory/cpu_rss_gib")
    assert set(expected) <= set(csv["name"])


def test_evaluation_from_the_checkpoint_alone(command, micro, tmp_path):
    assert command("train.py", *micro, "trainer=cpu", "logger=none").returncode == 0
    [best] = tmp_path.rglob("best.ckpt")
    moved = best.rename(tmp_path / "moved.ckpt")
    done = command("evaluate.py", f"ckpt={moved}", "trainer=cpu")
    assert done.returncode == 0, done.stderr
    assert f"{record(tmp_path)['result']['test/acc']:.2%}" in done.stdout
    more = command("evaluate.py", f"ckpt={moved}", "trainer=cpu", "eval.img_size=[24]")
    assert "canvas24" in more.stdout, more.stderr


@pytest.mark.slow
def test_a_sweep_is_a_run_per_cell_and_a_group_of_them(command, micro, tmp_path):
    sweep = ["-m", *micro, "embed=conv,linear", "pos=none,learned", "epochs=1", "trainer=cpu"]
    sweep.append("logger.tables=true")  # with pictures: each cell keeps them in a folder of its own
    done = command("train.py", *sweep, WANDB_RUN_ID="one")
    assert done.returncode == 0, done.stderr
    assert "WANDB_RUN_ID=one is left out" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("W&B: offline; ")
    assert "`wandb sync runs/wandb/offline-run-*`" in done.stdout
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("run.json")]
    cells = {(r["factors"]["embed"], r["factors"]["pos"]) for r in records}
    assert len(records) == len(cells) == 4
    files = list((tmp_path / "runs" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 4
    groups = {wandb_file(path.parent)["run_group"] for path in files[:2]}
    assert len(groups) == 1
    assert groups.pop().startswith("sweep-")
    assert len({path.read_text() for path in tmp_path.rglob("wandb_run_id.txt")}) == 4
    assert "4 cells: 4 done before" in command("train.py", *sweep).stdout


@pytest.mark.slow
def test_two_ranks_train_as_one_process_with_the_same_global_batch(command, micro, tmp_path):
    arguments = [*micro, "limit_batches=null", "epochs=1", "logger=csv", "eval=robust"]
    one = command("train.py", *arguments, "trainer=cpu", "runs_dir=one")
    two = command("train.py", *arguments, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "runs_dir=two")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    alone, shared = (record(tmp_path / name)["result"] for name in ("one", "two"))
    assert shared["test/images"] == alone["test/images"] == 360
    for name in ("test/acc", "test/loss", "val/acc", "val/loss"):
        assert shared[name] == pytest.approx(alone[name], rel=1e-3), name
    asked = {name for name in alone if name.startswith(("test/moved", "test/shuffled"))}
    assert len(asked) == 3 * 2 + 2 * 3, "accuracy and share that keeps its class, of shuffles also the loss"
    for name in asked:
        assert shared[name] == pytest.approx(alone[name], abs=1 / 360), name
    csvs = [pd.read_csv(next((tmp_path / name).rglob("metrics.csv"))) for name in ("one", "two")]
    losses = [csv[csv.name == "train/loss"].value.tolist() for csv in csvs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert two.stdout.count("images at a time") == 1, "only rank 0 speaks"
    names = [{path.name for path in (tmp_path / name).rglob("*") if path.is_file()} for name in ("one", "two")]
    assert names[0] == names[1]
    [best] = (tmp_path / "two").rglob("best.ckpt")
    assert torch.load(best, weights_only=True)["global_step"] == 1257 // 32


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("embed=cnv", ["embed=cnv is no option", "did you mean embed=conv?", "linear"]),
        ("batch_size=2000", ["batch_size=2000", "1257"]),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(command, tmp_path, arguments, said):
    """Mistakes in real processes; tests/test_mistakes.py tests the others in one process."""
    done = command("train.py", "model=micro", *arguments.split())
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    for words in said:
        assert words in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing is left behind"


def test_evaluation_refuses_what_is_no_checkpoint(command, tmp_path):
    (tmp_path / "some.ckpt").write_text("no checkpoint")
    for path, said in {"some.ckpt": "is damaged, or no checkpoint", "none.ckpt": "no such file"}.items():
        done = command("evaluate.py", f"ckpt={path}")
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert said in line


def test_ranks_inside_a_sweep_of_one_process_are_refused(command, micro):
    ranks = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    done = command("train.py", "-m", "hydra/launcher=basic", *micro, "seed=0,1", *ranks)
    assert done.returncode == 2
    assert "trainer.devices=2 in a sweep" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_groups_and_imports_nothing_heavy(command):
    done = command("train.py", "--help")
    assert done.returncode == 0
    assert f"embed: {', '.join(options('embed'))}" in done.stdout


def test_help_and_refusals_import_nothing_heavy():
    script = (
        "import sys; import train; print(*sorted(set(sys.modules) & {'torch', 'timm', 'pytorch_lightning', 'wandb'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
