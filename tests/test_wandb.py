"""W&B in every state that its users are in: real processes, and a server on loopback that takes what they send."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from support import MICRO, ROOT, record, wandb_file
from wandb_server import Server

from patchbench.track.redact import redact


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server
    assert server.unknown == [], "W&B asked for what this server does not know"


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HYDRA_"))}
    return kept | {"OMP_NUM_THREADS": "1", "HOME": str(home), "NETRC": str(home / "netrc")} | more


def sync(folder: Path, server: Server, *said: str) -> None:
    """Do what the last lines of training say."""
    found = [re.search(r"`wandb (sync [^`]+)`", each) for each in said]
    runs = sorted(str(path.relative_to(folder)) for path in folder.glob("runs/wandb/offline-run-*"))
    line = [sys.executable, "-m", "wandb", *(found[0][1].split() if found and found[0] else ["sync", *runs])]
    done = subprocess.run(line, cwd=folder, env=environment(folder, **server.env), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def written(folder: Path) -> dict[tuple[int, str], float]:
    """metrics.csv by step and name; rows that a resumed run repeats count."""
    [path] = folder.rglob("metrics.csv")
    return {(step, name): value for step, name, value in pd.read_csv(path).itertuples(index=False)}


def arrived(server: Server, run: str) -> dict[tuple[int, str], float]:
    rows = server.history(run)
    numbers = [(row["trainer/global_step"], name, value) for row in rows for name, value in row.items()]
    return {(s, n): v for s, n, v in numbers if not n.startswith(("_", "trainer/")) and isinstance(v, int | float)}


def interrupted(folder: Path, *arguments: str, **env: str) -> None:
    """Train, and take the first epoch for a reason to stop."""
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
    assert str(tmp_path).encode() not in everything
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


@pytest.mark.slow
def test_where_the_server_cannot_be_reached_a_run_is_kept_offline(command, server, tmp_path):
    server.reachable = False
    done = command("train.py", *MICRO, "epochs=1", **server.env)
    assert done.returncode == 0, done.stderr
    assert "no answer from the server" in done.stderr
    [kept] = tmp_path.glob("runs/wandb/offline-run-*")
    assert wandb_file(kept)["summary"]["test/acc"] == record(tmp_path)["result"]["test/acc"]


@pytest.mark.slow
def test_where_the_server_is_lost_training_goes_on_and_what_is_missing_can_be_sent_later(command, server, tmp_path):
    server.cut_after = "UpsertBucket"
    asked = ["epochs=2", "logger.tables=true", "logger.checkpoints=true", "logger.wandb.finish_s=3"]
    done = command("train.py", *MICRO, *asked, **server.env)
    assert done.returncode == 0, done.stderr
    assert "the server does not answer; nothing is lost" in done.stderr
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
