"""W&B online, offline and without a login: real processes, and a server on loopback that receives their uploads."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import wandb
from pytorch_lightning.loggers import WandbLogger
from support import MICRO, ROOT, command_in, configure, every, record, wandb_file
from wandb_server import Server

from patchbench.commands.build import check_options
from patchbench.redact import redact
from patchbench.runs import records
from patchbench.runs.browse import delete
from patchbench.runs.wandb_files import damage, run_id, sync_command
from patchbench.track import wandb_run as track
from patchbench.track.predictions import confusion, predictions
from patchbench.track.wandb_process import Watch
from patchbench.track.wandb_run import wandb_run


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server
    assert server.unknown == [], "W&B asked for what this server does not know"


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HYDRA_"))}
    return kept | {"OMP_NUM_THREADS": "1", "HOME": str(home), "NETRC": str(home / "netrc")} | more


def sync(folder: Path, server: Server, *said: str) -> None:
    """Run the sync command in the last lines of a training."""
    found = [re.search(r"`wandb (sync [^`]+)`", each) for each in said]
    runs = sorted(str(path.relative_to(folder)) for path in folder.glob("runs/wandb/offline-run-*"))
    line = [sys.executable, "-m", "wandb", *(shlex.split(found[0][1]) if found and found[0] else ["sync", *runs])]
    done = subprocess.run(line, cwd=folder, env=environment(folder, **server.env), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def written(folder: Path) -> dict[tuple[int, str], float]:
    """Read metrics.csv by step and name; the later of repeated rows counts."""
    [path] = folder.rglob("metrics.csv")
    return {(step, name): value for step, name, value in pd.read_csv(path).itertuples(index=False)}


def arrived(server: Server, run: str) -> dict[tuple[int, str], float]:
    rows = server.history(run)
    numbers = [(row["trainer/global_step"], name, value) for row in rows for name, value in row.items()]
    return {(s, n): v for s, n, v in numbers if not n.startswith(("_", "trainer/")) and isinstance(v, int | float)}


def interrupted(folder: Path, *arguments: str, **env: str) -> None:
    """Train, and stop after the first epoch."""
    line = [sys.executable, str(ROOT / "train.py"), *arguments]
    with subprocess.Popen(
        line, cwd=folder, env=environment(folder, **env), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for said in process.stderr:
            if said.startswith("epoch 1/"):
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM


def test_logged_in_all_of_a_run_arrives_and_nothing_that_is_private(command, server, tmp_path):
    asked = ["logger.tables=true", "logger.checkpoints=true", "logger.wandb.table_rows=7", "epochs=2"]
    private_things = {"HOME": str(tmp_path), "HF_TOKEN": "hf_thisisasecret"}
    done = command(
        "train.py",
        *MICRO,
        *asked,
        f"data_dir={tmp_path}/data",
        f"runs_dir={tmp_path}/runs",
        **server.env,
        **private_things,
    )
    assert done.returncode == 0, done.stderr
    [(name, run)] = server.runs.items()
    assert done.stderr.splitlines()[0] == f"W&B: {server.url}/someone/patchbench/runs/{name}"
    assert arrived(server, name) == pytest.approx(written(tmp_path))
    assert (run["displayName"], run["jobType"], run["exit_code"]) == ("micro conv/4 learned digits s0", "train", 0)
    assert {"embed=conv", "patch=4", "pos=learned", "data=digits", "seed=0"} <= set(run["tags"])
    assert run["config"]["epochs"] == 2
    assert run["config"]["environment"]["versions"]["torch"]

    result, summary = record(tmp_path)["result"], run["summary"]
    assert summary["val/acc"] == pytest.approx({"max": result["val/acc_best"], "last": result["val/acc"]})
    rates = [value for (_, metric), value in written(tmp_path).items() if metric == "throughput/images_per_s"]
    assert summary["throughput/images_per_s"] == pytest.approx({"mean": sum(rates) / len(rates), "last": rates[-1]})
    assert summary["final/images_per_s"] == pytest.approx(result["final/images_per_s"])

    kinds = {made["artifactTypeName"] for made in server.artefacts.values()}
    assert kinds == {"run_table", "model"}
    tables = {
        re.sub(r"_\d+_\w+\.table\.json$", "", path): json.loads(body)
        for path, body in run["files"].items()
        if path.endswith(".table.json")
    }
    sent = tables["media/table/test/predictions"]
    local = pd.read_csv(next(tmp_path.rglob("predictions.csv")))
    assert sent["columns"] == ["picture", "image", "label", "predicted", "probability", "probability_of_label"]
    assert [row[1:4] for row in sent["data"]] == local[["image", "label", "predicted"]].head(7).to_numpy().tolist()
    [model] = [made for made in server.artefacts.values() if made["artifactTypeName"] == "model"]
    assert json.loads(model["metadata"])["test/acc"] == result["test/acc"]
    assert len(model["files"]["best.ckpt"]) > 100_000

    everything = b"\n".join(server.bodies)
    for place in (tmp_path, ROOT, Path.home(), Path(sys.executable).parent):
        assert str(place).encode() not in everything
    assert f'"{socket.gethostname()}"'.encode() not in everything
    [began, *_] = server.asked("UpsertBucket")
    assert (began["program"], began["host"]) == ("train.py", None)
    for secret in (server.env["WANDB_API_KEY"], private_things["HF_TOKEN"]):
        assert secret.encode() not in everything


def test_the_tables_are_what_was_tested(command, tmp_path):
    done = command("train.py", *MICRO, "epochs=1", "logger=csv", "logger.tables=true", "limit_batches=null")
    assert done.returncode == 0, done.stderr
    result = record(tmp_path)["result"]
    said, pairs = (pd.read_csv(next(tmp_path.rglob(f"{name}.csv"))) for name in ("predictions", "confusion"))
    assert len(said) == pairs["count"].sum() == result["test/images"] == 360
    assert (said["label"] == said["predicted"]).mean() == pytest.approx(result["test/acc"])
    assert said["probability_of_label"].is_monotonic_increasing
    assert (said["probability"] >= said["probability_of_label"]).all()
    assert sorted(said["image"]) == list(range(360))
    right = pairs[pairs["label"] == pairs["predicted"]]["count"].sum()
    assert right / 360 == pytest.approx(result["test/acc"])


@pytest.mark.slow
@pytest.mark.parametrize("online", [False, True])
def test_a_run_that_was_cut_off_goes_on_as_the_same_run(server, tmp_path, online):
    arguments = [*MICRO, "epochs=40"]
    env = server.env if online else {}
    interrupted(tmp_path, *arguments, **env)
    line = [sys.executable, str(ROOT / "train.py"), *arguments]
    done = subprocess.run(line, cwd=tmp_path, env=environment(tmp_path, **env), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/wandb/*run-*/*.wandb"))) == 2
    if not online:
        assert server.runs == {}
        sync(tmp_path, server)
    [(name, run)] = server.runs.items()
    assert (run["exit_code"], run["jobType"]) == (0, "train")
    assert arrived(server, name) == pytest.approx(written(tmp_path))


def test_disabled_there_is_no_trace_of_it(command, tmp_path):
    done = command(
        "train.py", *MICRO, "epochs=1", "logger.tables=true", "logger.checkpoints=true", WANDB_MODE="disabled"
    )
    assert done.returncode == 0, done.stderr
    assert "W&B" not in done.stderr
    assert not list(tmp_path.rglob("*wandb*"))
    assert record(tmp_path)["result"]["test/acc"] == written(tmp_path)[4, "test/acc"]


@pytest.mark.promise("the server of W&B cannot be reached", "The run is trained and kept offline")
@pytest.mark.slow
def test_where_the_server_cannot_be_reached_a_run_is_kept_offline(command, server, tmp_path):
    server.reachable = False
    done = command("train.py", *MICRO, "epochs=1", **server.env)
    assert done.returncode == 0, done.stderr
    assert "W&B: the run could not be started online" in done.stderr
    assert "logging offline" in done.stderr
    assert record(tmp_path)["result"]["time/wall_s"] < track.START_S, "waiting for W&B is no training"
    [kept] = tmp_path.glob("runs/wandb/offline-run-*")
    assert wandb_file(kept)["summary"]["test/acc"] == record(tmp_path)["result"]["test/acc"]


@pytest.mark.promise(
    "the server of W&B is lost in training",
    "The run is completed, and what is missing can be sent later",
)
@pytest.mark.slow
def test_where_the_server_is_lost_training_goes_on_and_what_is_missing_can_be_sent_later(command, server, tmp_path):
    server.cut_after = "UpsertBucket"
    asked = ["epochs=2", "logger.tables=true", "logger.checkpoints=true", "logger.wandb.finish_s=3"]
    done = command("train.py", *MICRO, *asked, **server.env)
    assert done.returncode == 0, done.stderr
    assert "the server has not received everything within 3 s (logger.wandb.finish_s); nothing is lost" in done.stderr
    assert len(written(tmp_path)) > 50
    [(name, run)] = server.runs.items()
    assert arrived(server, name) == {}
    server.reachable, server.cut_after = True, ""
    sync(tmp_path, server, done.stderr)
    assert arrived(server, name) == pytest.approx(written(tmp_path))
    assert run["exit_code"] == 0


@pytest.mark.slow
def test_two_ranks_are_one_run(command, server, tmp_path):
    ranks = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    done = command("train.py", *MICRO, "epochs=1", *ranks, "logger.tables=true", **server.env)
    assert done.returncode == 0, done.stderr
    [(name, _)] = server.runs.items()
    assert arrived(server, name) == pytest.approx(written(tmp_path))
    said = pd.read_csv(next(tmp_path.rglob("predictions.csv")))
    assert said["image"].is_unique
    assert (said["label"] == said["predicted"]).mean() == pytest.approx(record(tmp_path)["result"]["test/acc"])


def test_paths_below_home_and_secrets_are_not_told(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SOME_API_KEY", "abcdefghijkl")
    told = {
        "root": f"{tmp_path}/images",
        "beside": f"{tmp_path}2/images",
        "list": [f"a {tmp_path}", ("tuple", 1)],
        "hub_token": "x",
        "url": "https://me:pass@host/x?k=abcdefghijkl",
        "num_prefix_tokens": 1,
        str(tmp_path): 2,
    }
    assert redact(told) == {
        "root": "~/images",
        "beside": f"{tmp_path}2/images",
        "list": ["a ~", ("tuple", 1)],
        "hub_token": "***",
        "url": "https://***@host/x?k=***",
        "num_prefix_tokens": 1,
        "~": 2,
    }


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A working directory without credentials; W&B reads its environment again."""
    for name in os.environ:
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    for name, path in {"HOME": tmp_path / "home", "NETRC": tmp_path / "home" / "netrc"}.items():
        monkeypatch.setenv(name, str(path))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    wandb.teardown()
    yield here
    wandb.teardown()


def logging(out_dir: Path, **more: Any) -> AbstractContextManager[WandbLogger]:
    """Start a W&B run without a training."""
    out_dir.mkdir(parents=True, exist_ok=True)
    given = {"runs_dir": out_dir.parent, "resume": False, "in_sweep": False, "mode": "auto", "finish_s": 20.0}
    given |= {"project": None, "entity": None, "group": None, "tags": [], "notes": None, "table_rows": 2}
    return wandb_run(out_dir=out_dir, **given | {"name": "a run", "levels": ["seed=0"], "config": {}} | more)


PREDICTED = predictions(*map(torch.tensor, ([0, 1], [1, 0], [1, 1], [0.9, 0.6], [0.9, 0.4])), ["a", "b\\xb9"])


RUNS_DIRS = ["runs", "../outside/runs", "{tmp}/far off/runs", "link/runs"]
WANDB_DIRS = [None, "../elsewhere/wandb dir"]


@pytest.mark.parametrize(("online", "runs_dir", "wandb_dir"), every(product([False, True], RUNS_DIRS, WANDB_DIRS), 4))
def test_wherever_runs_lie_artifacts_and_later_rows_arrive(
    server, here, tmp_path, monkeypatch, capsys, runs_dir, wandb_dir, online
):
    if online:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
    if wandb_dir:
        monkeypatch.setenv("WANDB_DIR", wandb_dir)
    (tmp_path / "linked").mkdir()
    (here / "link").symlink_to(tmp_path / "linked")
    out_dir = Path(runs_dir.format(tmp=tmp_path)) / "run"
    out_dir.mkdir(parents=True)
    torch.save({"state_dict": {"weight": torch.zeros(1000)}}, out_dir / "best.ckpt")
    with logging(out_dir) as logger:
        logger.log_metrics({"before": 1.0}, 1)
        logger.log_predictions(PREDICTED, confusion(PREDICTED), lambda n: torch.zeros(len(n), 3, 4, 4).byte())
        logger.log_checkpoint(out_dir / "best.ckpt", out_dir.name, {"test/acc": 0.5})
        logger.log_metrics({"after": 2.0}, 2)
    said = capsys.readouterr().err
    assert "could not" not in said
    if not online:
        assert said.count("wandb sync ") == 1
        sync(here, server, said)
    [(name, run)] = server.runs.items()
    assert (run["summary"]["before"], run["summary"]["after"], run["exit_code"]) == (1.0, 2.0, 0)
    kinds = [made["artifactTypeName"] for made in server.artefacts.values()]
    assert sorted(kinds) == ["model", "run_table", "run_table"]
    [model] = [made for made in server.artefacts.values() if made["artifactTypeName"] == "model"]
    assert len(model["files"]["best.ckpt"]) > 4000
    place = Path(wandb_dir or out_dir.parent) / "wandb"
    [folder] = place.glob("*run-*")
    assert folder.name.endswith(name)
    assert not online or not list(place.glob("staging/*")), "what is uploaded is not kept twice"
    if runs_dir == "runs" and not wandb_dir:
        assert str(tmp_path).encode() not in b"".join(server.bodies)
    assert "WANDB_DATA_DIR" not in os.environ


def test_what_cannot_be_uploaded_costs_neither_the_run_nor_later_rows(here, capsys, monkeypatch):
    with logging(Path("runs/run")) as logger:
        logger.log_metrics({"before": 1.0}, 1)
        logger.log_checkpoint(Path("nowhere/best.ckpt"), "a", {})
        logger.log_predictions(PREDICTED, confusion(PREDICTED), lambda n: torch.zeros(0, 3, 4, 4).byte())
        logger.log_pictures({"analysis/kernels": Path("nowhere.png")}, 1)
        logger.log_metrics({"after": 2.0}, 2)
    said = capsys.readouterr().err
    for what in ("best.ckpt", "the tables of predictions", "analysis/kernels"):
        assert f"W&B: {what} could not be uploaded (" in said
    assert "its process has ended" not in said
    assert wandb_file(here)["summary"]["after"] == 2.0


@contextmanager
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def closed() -> Iterator[str]:
    """An address without a server."""
    with silent() as address:
        pass
    yield address


@pytest.mark.parametrize("unreachable", [silent, closed])
def test_a_server_that_cannot_be_reached_is_not_waited_for(here, monkeypatch, capsys, unreachable):
    assert track.START_S + track.GRACE_S < 15
    monkeypatch.setattr(track, "START_S", 1.0)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    with unreachable() as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        began = time.monotonic()
        with logging(Path("runs/run")) as logger:
            started = time.monotonic()
            logger.log_metrics({"a": 1.0}, 1)
        assert started - began < 1 + track.GRACE_S + 4
        assert time.monotonic() - started < 4
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert re.match(r"W&B: the run could not be started online \(Timed out .*\); logging offline", lines[0])
    assert "init_timeout" not in lines[0]
    [kept] = here.glob("runs/wandb/offline-run-*")
    assert wandb_file(kept)["summary"]["a"] == 1.0


STOPPED = """
import sys, time
from pathlib import Path
import psutil
sys.path.insert(0, sys.argv[1])
from test_wandb import logging

with logging(Path("runs/run"), finish_s=2.0) as logger:
    logger.log_metrics({"before": 1.0}, 1)
    for child in psutil.Process().children():
        child.suspend()
    began = time.monotonic()
    for step in range(2, int(sys.argv[2])):
        logger.log_metrics({f"{step} {name}": 2.0 for name in range(2000)}, step)
assert time.monotonic() - began < 2 + 3 + 3
assert not psutil.Process().children(), "a process of W&B is left"
with logging(Path("runs/next")) as logger:  # in the same process, as in a sweep of Hydra's own launcher
    logger.log_metrics({"next": 3.0}, 1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("until", "said"),
    [(2, "did not answer for 5 s and was ended; offline"), (200, "did not answer for 2 s and was ended: further rows")],
    ids=["at the end", "while rows are logged"],
)
def test_a_process_of_wandb_that_is_stopped_holds_up_no_run(tmp_path, until, said):
    line = [sys.executable, "-c", STOPPED, str(Path(__file__).parent), str(until)]
    done = subprocess.run(line, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(said) == 1, done.stderr
    assert f"of {until - 1} rows; metrics.csv has all; `wandb login`, then `wandb sync runs/wandb/" in done.stderr
    [after] = tmp_path.glob(f"runs/wandb/offline-run-*-{run_id(tmp_path / 'runs' / 'next')}")
    assert wandb_file(after)["summary"]["next"] == 3.0


@pytest.mark.parametrize(
    ("stopped", "busy_s", "killed"), [(True, 60.0, True), (False, 60.0, False), (False, 0.0, True)]
)
def test_only_a_process_that_is_stopped_is_killed_at_the_limit(tmp_path, stopped, busy_s, killed):
    """A process that is not stopped may wait for a server, with rows that are not yet written."""
    program = shutil.copy(shutil.which("sleep") or "", tmp_path / "wandb-core")
    with subprocess.Popen([program, "60"]) as process, closing(Watch()) as watch:
        time.sleep(0.2)
        if stopped:
            process.send_signal(signal.SIGSTOP)
        with watch.limit(0.2, busy_s):
            time.sleep(1.5)
        assert watch.ended == killed
        assert (process.poll() is not None) == killed
        with watch.limit(60.0):
            assert watch.ended == killed
        process.kill()


def test_a_file_that_is_cut_short_or_altered_is_not_called_whole(here, capsys):
    with logging(Path("runs/run")) as logger:
        for step in range(200):
            logger.log_metrics({f"a metric {name}": float(step) for name in range(20)}, step)
    assert "cut short" not in capsys.readouterr().err
    [log] = here.rglob("*.wandb")
    whole = log.read_bytes()
    assert len(whole) > 3 * 32_768, "several blocks"
    assert damage(log, 200) == ""
    assert damage(log, 201) == "is cut short, as by a full disk, and holds 200 of 201 rows; metrics.csv has all"
    for length in (0, 3, 7, 100, 32_768, 65_540, len(whole) - 1, len(whole) - 40):
        log.write_bytes(whole[:length])
        assert re.fullmatch(r"is cut short, .* holds \d+ of 200 rows; metrics.csv has all", damage(log, 200)), length
    log.write_bytes(whole[:50_000] + bytes([whole[50_000] ^ 1]) + whole[50_001:])
    assert "is cut short" in damage(log, 200)
    log.unlink()
    assert damage(log, 200).startswith("cannot be read (")


SMALL_DISK = "mkdir disk && mount -t tmpfs -o size=64k tmpfs disk && exec"
NAMESPACES = (
    bool(shutil.which("unshare")) and not subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode
)
FULL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_wandb import logging

with logging(Path("runs/run")) as logger:
    for step in range(200):
        logger.log_metrics({f"{step} {name}": 2.0 for name in range(100)}, step)
"""


@pytest.mark.slow
@pytest.mark.skipif(not NAMESPACES, reason="this system gives users no file systems of their own")
def test_a_full_disk_is_told_where_the_run_ends(tmp_path):
    python = shlex.join([sys.executable, "-c", FULL, str(Path(__file__).parent)])
    line = ["unshare", "-Urm", "sh", "-c", f"{SMALL_DISK} {python}"]
    env = environment(tmp_path, WANDB_DIR="disk")
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\.wandb is cut short, as by a full disk, and holds \d+ of 200 rows", done.stderr), done.stderr
    assert re.search("`wandb sync disk/wandb/offline-run-[^`]*`, uploads the intact rows$", done.stderr.strip())


ENDING = """
import sys, time
from pathlib import Path
import psutil
sys.path.insert(0, sys.argv[1])
from test_wandb import logging

with logging(Path("runs/run")) as logger:
    logger.log_metrics({"before": 1.0}, 1)
    for child in psutil.Process().children(recursive=True):
        child.kill()
        child.wait(10)
    for step in range(2, 200):
        logger.log_metrics({"after": 2.0}, step)
        time.sleep(0.01)
with logging(Path("runs/next")) as logger:  # in the same process, as in a sweep of Hydra's own launcher
    logger.log_metrics({"next": 3.0}, 1)
"""


@pytest.mark.slow
def test_if_the_process_of_wandb_ends_it_is_said_once_and_runs_go_on(tmp_path):
    line = [sys.executable, "-c", ENDING, str(Path(__file__).parent)]
    done = subprocess.run(line, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("its process has ended") == 1
    [after] = tmp_path.glob(f"runs/wandb/offline-run-*-{run_id(tmp_path / 'runs' / 'next')}")
    assert wandb_file(after)["summary"]["next"] == 3.0


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ({"UpsertBucket": (404, "entity nobody not found")}, "entity nobody not found"),
        ({"UpsertBucket": (403, "permission denied")}, "permission denied"),
        ({"UpsertBucket": (401, "user is not logged in")}, "not logged in"),
    ],
)
def test_a_run_that_the_server_refuses_is_logged_offline(server, here, monkeypatch, capsys, refused, said):
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    server.refused = refused
    with logging(Path("runs/run"), entity="nobody") as logger:
        logger.log_metrics({"a": 1.0}, 1)
    lines = capsys.readouterr().err
    assert said in lines.splitlines()[0]
    assert "logging offline" in lines.splitlines()[0]
    [kept] = here.glob("runs/wandb/offline-run-*")
    assert wandb_file(kept)["summary"]["a"] == 1.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("logger.wandb.project=a/b", "logger.wandb.project=a/b .*use logger.wandb.entity=a logger.wandb.project=b"),
        ("logger.wandb.project=a:b", "logger.wandb.project=a:b .*letters"),
        ("logger.wandb.project=1.5", "logger.wandb.project=1.5 .*null"),
        ("logger.wandb.project=''", "logger.wandb.project= .*null"),
        ("logger.wandb.entity=a/b", "logger.wandb.entity=a/b .*letters"),
        ("logger.wandb.mode=on", "logger.wandb.mode=on .*offline"),
        ("logger.wandb.mode=online", "nobody is logged in.*wandb login.*mode=offline"),
        (f"logger.wandb.tags=[{'a' * 65}]", "logger.wandb.tags: .*65 characters.*64"),
        ("logger.wandb.notes=[a]", "logger.wandb.notes=.*null"),
        ("logger.wandb.finish_s=-1", "logger.wandb.finish_s=-1"),
        ("logger.wandb.table_rows=-1", "logger.wandb.table_rows=-1"),
        ("WANDB_API_KEY=abc", "WANDB_API_KEY .*40.*wandb login.*logger=csv"),
        ("WANDB_PROJECT=a/b", "WANDB_PROJECT=a/b .*unset WANDB_PROJECT"),
        ("WANDB_MODE=never", "WANDB_MODE=never .*unset WANDB_MODE"),
        ("WANDB_BASE_URL=here", "WANDB_BASE_URL=here .*URL"),
        ("WANDB_TAGS=a,,b", "WANDB_TAGS=a,,b .*empty"),
    ],
)
def test_what_wandb_would_refuse_is_refused_before_training_with_the_cure(here, monkeypatch, given, said):
    if given.startswith("WANDB_"):
        monkeypatch.setenv(*given.split("=", 1))
        given = "seed=0"
    with pytest.raises(ValueError, match=f"^.*{said}") as refused:
        check_options(configure(given))
    assert "\n" not in str(refused.value)
    assert "abc" not in str(refused.value)


@pytest.mark.parametrize("variable", ["WANDB_MODE", "WANDB_RUN_ID", "WANDB_BASE_URL", "WANDB_PROJECT"])
def test_an_empty_variable_counts_as_none(here, monkeypatch, variable):
    monkeypatch.setenv(variable, "")
    check_options(configure("seed=0"))
    assert variable not in os.environ, "W&B itself would object to it"


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ({}, {}, "patchbench"),
        ({}, {"WANDB_PROJECT": "theirs"}, "theirs"),
        ({"project": "mine"}, {"WANDB_PROJECT": "theirs"}, "mine"),
        ({"project": 2024}, {}, "2024"),
    ],
)
def test_the_command_line_comes_before_the_environment_and_that_before_the_default(
    here, monkeypatch, given, environment, expected
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_TAGS", "theirs")
    monkeypatch.setenv("WANDB_NAME", "called")
    with logging(Path("runs/run"), tags=["mine", 7], notes="why", **given) as logger:
        logger.log_metrics({"a": 1.0}, 1)
    kept = wandb_file(here)
    assert kept["project"] == expected
    assert set(kept["tags"]) == {"seed=0", "mine", "7", "theirs"}
    assert (kept["notes"], kept["display_name"]) == ("why", "called")


def test_disabled_by_the_old_variable_it_says_so(here, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_DISABLED", "true")
    with logging(Path("runs/run")) as logger:
        logger.log_metrics({"a": 1.0}, 1)
    assert capsys.readouterr().err == "W&B: disabled by WANDB_DISABLED\n"
    assert not list(here.rglob("*wandb*"))


def test_an_id_of_the_environment_is_for_one_run_alone(here, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_RUN_ID", "given")

    def id_of(out_dir: Path, **more: Any) -> tuple[str, bool]:
        with logging(out_dir, mode="offline", **more):
            pass
        return run_id(out_dir) or "", "WANDB_RUN_ID=given is left out" in capsys.readouterr().err

    assert id_of(Path("runs/one")) == ("given", False)
    assert id_of(Path("runs/one"), resume=True) == ("given", False)
    own, said = id_of(Path("runs/two"))
    assert own != "given"
    assert said
    swept, said = id_of(Path("runs/three"), in_sweep=True)
    assert len({"given", own, swept}) == 3
    assert said
    monkeypatch.setenv("WANDB_RESUME", "must")  # of the run that is not meant
    assert id_of(Path("runs/two"), resume=True) == (own, True)


def test_all_stretches_of_a_run_are_named_and_go_with_the_run_when_it_is_deleted(here, capsys):
    out_dir = Path("runs/a run_00000000")
    for stretch in range(2):
        with logging(out_dir, resume=stretch > 0) as logger:
            logger.log_metrics({"a": float(stretch)}, stretch)
        time.sleep(1.1)  # the folder is called by the second
    torch.save({}, out_dir / "best.ckpt")
    other = Path("runs/b_11111111")
    with logging(other) as logger:
        logger.log_checkpoint(out_dir / "best.ckpt", "b", {})
    own = run_id(out_dir)
    lines = capsys.readouterr().err.splitlines()
    assert f"`wandb sync runs/wandb/offline-run-*-{own}`" in lines[1]
    assert sync_command(Path("runs/wandb"), [own, run_id(other)]) == "wandb sync runs/wandb/offline-run-*"
    staged = list(Path("runs/wandb/staging").rglob("tmp*"))
    assert len(staged) == 1
    assert delete(records.load(Path("runs")).query("identity == '00000000'"), Path("runs")) == []
    assert [path.name.endswith(run_id(other)) for path in Path("runs/wandb").glob("*run-*-*")] == [True]
    assert not out_dir.exists()
    assert staged[0].exists()
    delete(records.load(Path("runs")), Path("runs"))
    assert not list(Path("runs/wandb").glob("*run-*-*"))
    assert not staged[0].exists()


def test_runs_of_one_process_have_their_tables_and_ids_though_they_lie_elsewhere(command, tmp_path):
    """Hydra's own launcher runs all cells of a sweep in one process."""
    sweep = ["-m", "hydra/launcher=basic", "seed=0,1", "epochs=1", "logger.tables=true", "logger.checkpoints=true"]
    here, far = tmp_path / "here", tmp_path / "far"
    here.mkdir()
    home = {"HOME": str(tmp_path / "home"), "NETRC": str(tmp_path / "home" / "netrc")}
    done = command_in(here, "train.py", *sweep, *MICRO, f"runs_dir={far}", WANDB_RUN_ID="one", **home)
    assert done.returncode == 0, done.stderr
    assert "could not" not in done.stderr
    assert done.stderr.count("WANDB_RUN_ID=one is left out") == 2
    assert "../" not in done.stdout
    assert f"{far}/micro_conv-4" in done.stdout
    folders = sorted(far.glob("wandb/offline-run-*"))
    assert len({folder.name.rpartition("-")[2] for folder in folders} - {"one"}) == 2
    for folder in folders:
        kept = wandb_file(folder)
        assert "test/acc" in kept["summary"]
        assert kept["exit_code"] == 0
        assert len(list(folder.glob("files/media/table/test/*.table.json"))) == 2
    assert len(list(far.glob("*/predictions.csv"))) == 2
