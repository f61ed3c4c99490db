"""Workspaces and reports of W&B as specifications: metrics that runs log, text of reports, and publication."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from support import MICRO, STUDY, command_in
from wandb_server import Server

from patchbench.config.plan import COMMON_OVERRIDES

SECTIONS = ["accuracy", "throughput", "memory", "accuracy against speed and memory", "factors", "runs compared"]
SECTIONS += ["learned pictures"]
ON_A_GPU = re.compile(r"(memory|final)/gpu_|throughput/mfu$")  # tests/test_gpu.py has their names


@pytest.fixture(scope="module")
def swept(once) -> Path:
    """A sweep of real runs, kept offline."""

    def fill(folder: Path) -> None:
        sweep = ["-m", *COMMON_OVERRIDES, *MICRO, "epochs=1", "pos=none,learned", "seed=0,1"]
        done = command_in(folder, "train.py", *sweep)
        assert done.returncode == 0, done.stderr

    return once("published-sweep", fill)


@pytest.fixture
def folder(swept, tmp_path) -> Path:
    """A copy of the sweep that a test may change."""
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True, symlinks=True)
    return tmp_path


def walk(node):
    """Yield all mappings of a specification."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for below in node:
            yield from walk(below)


def names(spec: dict) -> tuple[set[str], set[str]]:
    """Return the metrics and the keys of the configuration in panels and columns."""
    found = set()
    for node in walk(spec):
        found.update(name for name in node.get("metrics", []) if isinstance(name, str))
        found.update(node[key] for key in ("xAxis", "yAxis", "zAxis", "accessor") if isinstance(node.get(key), str))
        found.update(name for name in node.get("pinnedColumns", node.get("columnOrder", [])) or [])
        found.update(f"config:{node[key]}" for key in ("groupBy",) if isinstance(node.get(key), str))
    found = {re.sub(r"^summary(_metrics\.|:)", "", name) for name in found}
    config = {re.sub(r"^config[.:]|\.value$", "", name) for name in found if name.startswith("config")}
    metrics = {name for name in found if not name.startswith(("config", "_", "run:"))}
    return metrics, config


def anonymous(node):
    """Return a specification without the random names of its panels."""
    if isinstance(node, dict):
        return {key: anonymous(below) for key, below in node.items() if key not in ("__id__", "id", "ref")}
    return [anonymous(below) for below in node] if isinstance(node, list) else node


def logged(folder: Path) -> tuple[set[str], set[str]]:
    from support import wandb_file

    sent = wandb_file(next(folder.glob("runs/wandb/offline-run-*")))
    return {name for row in sent["rows"] for name in row}, set(sent["config"])


def made(folder: Path, *arguments: str, **env: str) -> dict:
    done = command_in(folder, "scripts/publish.py", *arguments, **env)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip()) if done.stdout.startswith("runs") else next(folder.glob("runs/publish/*"))
    return json.loads((folder / path).read_text())


@pytest.mark.slow
def test_the_workspace_has_every_section_and_its_panels_show_what_runs_log(folder):
    told = made(folder)
    sections = {
        section["name"]: section["panels"] for section in told["spec"]["section"]["panelBankConfig"]["sections"]
    }
    assert list(sections) == SECTIONS
    assert all(sections.values())
    metrics, config = names(told["spec"])
    has_metrics, has_config = logged(folder)
    assert len(metrics) > 20
    assert {name for name in metrics - has_metrics if not ON_A_GPU.match(name)} == set()
    assert {"embed", "patch", "pos", "data"} <= config <= has_config
    [axes] = [panel["config"]["columns"] for panel in sections["factors"]]
    told_axes = [column["accessor"] for column in axes][:4]
    assert told_axes == [f"config:{name}.value" for name in ("embed", "patch", "pos", "data")]
    assert {panel["viewType"] for panel in sections["runs compared"]} == {"Run Comparer"}
    fronts = [panel["config"] for panel in sections["accuracy against speed and memory"]]
    assert {front["xAxis"] for front in fronts if front["showMaxYAxisLine"]} == {
        f"summary:{name}" if ":" in fronts[0]["xAxis"] else f"summary_metrics.{name}"
        for name in ("final/ms_per_image", "final/gpu_peak_allocated_gib", "final/cpu_rss_gib")
    }


@pytest.mark.slow
def test_pictures_that_runs_have_logged_are_in_the_workspace(folder):
    [run, *_] = folder.glob("runs/wandb/offline-run-*")
    for name in (
        "images/analysis/kernels_8_0a1b2c.png",
        "images/analysis/block_0/heads_8_0a1b2d.png",
        "images/x_1_a.png",
    ):
        (run / "files" / "media" / name).parent.mkdir(parents=True, exist_ok=True)
        (run / "files" / "media" / name).touch()
    spec = made(folder)["spec"]
    keys = [key for node in walk(spec) for key in node.get("mediaKeys", [])]
    assert keys == ["analysis/block_0/heads", "analysis/kernels"]


@pytest.mark.slow
def test_a_report_of_a_sweep_says_what_its_page_says_and_links_to_its_runs(folder):
    told = made(folder, "runs", "against=none", "entity=someone")
    written = (folder / "runs" / "reports" / "all" / "README.md").read_text()
    blocks = told["spec"]["blocks"]
    said = "\n".join(block["content"] for block in blocks if block["type"] == "markdown-block")
    for line in written.splitlines()[1:]:
        if line and not line.startswith(("#", "![")):
            assert line in said, line
    assert told["title"] == written.splitlines()[0].removeprefix("# ")
    headings = [block["children"][0]["text"] for block in blocks if block["type"] == "heading"]
    assert headings[:-1] == re.findall(r"^##+ (.*)$", re.sub(r"```.*?```", "", written, flags=re.S), flags=re.M)
    keys = [key for node in walk(told["spec"]) for key in node.get("mediaKeys", [])]
    assert keys == [f"figures/{name}" for name in re.findall(r"\]\((\w+)\.svg\)", written)]
    ids = {path.read_text() for path in folder.glob("runs/*/wandb_run_id.txt")}
    assert set(re.findall(r"https://\S+/someone/patchbench/runs/(\w+)\)", said)) == ids
    assert len(ids) == 4
    records = [json.loads(path.read_text()) for path in folder.glob("runs/*/run.json")]
    chosen = [node["value"] for node in walk(told["spec"]) if node.get("op") == "IN"]
    assert chosen == [sorted(record["identity"] for record in records)]
    metrics, config = names(told["spec"])
    has_metrics, has_config = logged(folder)
    assert {name for name in metrics - has_metrics if not ON_A_GPU.match(name)} == set()
    assert config <= has_config


@pytest.mark.slow
def test_a_report_of_a_study_has_its_statement_and_its_answer(folder):

    from patchbench.commands.publish import publish_study

    experiments = folder / "experiments" / "positions"
    experiments.mkdir(parents=True)
    study = {**STUDY, "overrides": [*MICRO, "epochs=1"], "scales": {"cpu": {"seeds": [0, 1]}}}
    study["tune"] = {"optim.lr": [5e-4]}  # the default, so that the runs of the sweep have the chosen setting
    (experiments / "study.yaml").write_text(json.dumps(study))
    tried = pd.DataFrame([("digits", arm, "optim.lr=0.0005", 0.5, True) for arm in STUDY["factors"]["pos"]])
    tried.columns = ["part", "arm", "setting", "val/acc", "chosen"]
    tried.to_csv(experiments / "tuned.csv", index=False)
    out = folder / "study.json"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_MODE", "WANDB_API_KEY"):  # W&B reads its mode once a process; without a login it is offline
            patch.delenv(name, raising=False)
        for runs in (folder / "runs", folder / "none"):  # with its runs, and from what was written of them
            said = publish_study("positions", "cpu", runs, "p", "e", out, experiments=experiments.parent)
            assert said == str(out)
            told = json.loads(out.read_text())
            text = json.dumps(told["spec"], ensure_ascii=False)
            assert told["title"] == STUDY["question"]
            says = STUDY["parts"]["digits"]["statements"]["learned_helps"]["says"]
            for words in ("Open.", says, STUDY["doubts"], "Tuning"):
                assert words in text
            assert ("/e/p/runs/" in text) == (runs.name == "runs")


@pytest.mark.slow
def test_logged_in_what_was_written_is_published_and_the_second_time_changed(folder):
    with Server() as server:
        for arguments, kind in (([], "project-view"), (["runs"], "runs")):
            shutil.rmtree(folder / "runs" / "publish", ignore_errors=True)
            offline = made(folder, *arguments)
            for _ in range(2):
                done = command_in(folder, "scripts/publish.py", *arguments, **server.env)
                assert done.returncode == 0, done.stderr
                [view] = [view for view in server.views.values() if view["type"] == kind]
                assert anonymous(json.loads(view["spec"])) == anonymous(made_again(folder))
                assert done.stdout.startswith(f"{server.url}/someone/patchbench")
                assert len(done.stdout.splitlines()) == 1
                assert done.stderr == ""
            if not arguments:
                assert anonymous(json.loads(view["spec"])) == anonymous(offline["spec"])
        [run] = [run for run in server.runs.values() if run["jobType"] == "report"]
    assert server.unknown == []
    drawn = {re.sub(r"_\d+_\w+\.html$", "", name) for name in run["files"] if name.endswith(".html")}
    svgs = {path.stem for path in folder.glob("runs/reports/all/*.svg")}
    assert drawn == {f"media/html/figures/{name}" for name in svgs}


def made_again(folder: Path) -> dict:
    [path] = folder.glob("runs/publish/*.json")
    return json.loads(path.read_text())["spec"]


def test_what_cannot_be_published_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        (["no_such_study"], "there is no"),
        (["colour=red"], "colour=red is no option"),
        (["empty"], "no finished run"),
    ):
        done = command_in(tmp_path, "scripts/publish.py", *arguments)
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert said in line
