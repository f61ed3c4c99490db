"""The evidence from a GPU: one command, one file, one table; on a CPU the command is rehearsed."""

import importlib.util
import json
from types import ModuleType

import pytest
import torch
from support import ROOT

from patchbench.commands.bench.evidence import measured


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and it would be measured")
def test_without_a_gpu_it_says_so_in_one_line(command, tmp_path):
    done = command("scripts/gpu_evidence.py")
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("error: torch sees no CUDA GPU")
    assert "device=cpu" in line


@pytest.mark.slow
def test_it_is_rehearsed_on_a_cpu_and_leaves_a_file_that_makes_a_table(command, tmp_path):
    done = command("scripts/gpu_evidence.py", "device=cpu", f"out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    [path] = (tmp_path / "out").iterdir()
    evidence = json.loads(path.read_text())
    assert path.name.startswith("cpu-")
    assert evidence["device"]["name"] == "cpu"
    assert torch.__version__.startswith(evidence["versions"]["torch"])
    assert evidence["wall_s"] < 480
    items = evidence["items"]
    assert not [name for name, item in items.items() if "error" in item]
    goal = items["B/16"]
    assert goal["batch_size"] == 16
    assert 0 < goal["images_per_s_wall"] <= goal["images_per_s"]
    assert items["B/16 bare loop"]["images_per_s"] > 0
    assert all(process["exit_code"] == 0 for process in items["processes"].values())
    assert items["tests"]["counts"]["passed"] == 1 + 1, "rope and rope_mixed"
    assert items["tests"]["not_passed"] == {}

    table = script("readme").gpus
    assert "no file from a GPU yet" in table([evidence]), "a rehearsal is no evidence"
    items["attention"] = {"left_out": "no time was left"}
    older = evidence | {"rehearsal": False, "date": "2026-01-01T00:00:00+00:00"}
    said = table([evidence | {"rehearsal": False}, older])
    assert "Inference of `model=micro" in said
    assert "| B/16 inference |" not in said
    assert f"| B/16 | 16 | {goal['images_per_s']:,.0f} |" in said
    assert "Not measured: attention." in said
    assert "Tests on the GPU: 2 passed." in said
    assert "Older measurements of the same: 1 in" in said
    partial = {name: item for name, item in items.items() if name in ("ceilings", "attention", "B/16 bare loop")}
    said = table([evidence | {"rehearsal": False, "items": partial}, older])
    assert said.count("| B/16 bare loop |") == 1
    assert said.index("| B/16 bare loop |") < said.index("| B/16 | 16 |"), (
        "an older file shows what the newer one lacks"
    )
    assert "Tests on the GPU: 2 passed." in said


def test_a_page_says_plainly_that_there_is_no_figure_yet_and_keeps_the_rest(tmp_path, monkeypatch):
    readme = script("readme")
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    text = "a\n<!-- gpu -->\nold\n<!-- end -->\nb\n<!-- first jobs -->\nkept\n<!-- end -->\n"
    pages = {tmp_path / "README.md": "c\n", tmp_path / "docs" / "sweeps.md": text}
    (tmp_path / "docs").mkdir()
    for page, content in pages.items():
        page.write_text(content)
    block = readme.gpus([])
    assert "no figure of speed or memory" in block
    readme.write_between("gpu", block)
    assert [page.read_text() for page in pages] == ["c\n", text.replace("old\n", block)]
    with pytest.raises(ValueError, match="<!-- none -->"):
        readme.write_between("none", block)


def test_items_that_failed_or_had_no_time_are_not_measured():
    done = {"exit_code": 0, "images_per_s": 1.0}
    items = {
        "a": done,
        "b": {"left_out": "no time was left"},
        "c": {"error": "ValueError"},
        "d": {"sweep": {"exit_code": 1}},
        "f": {"exit_code": None, "ended": "stopped when the time was over"},
    }
    assert measured(items | {"e": [1, 2], "tests": {"exit_code": 1, "counts": {"failed": 1}}}) == {"a", "e"}


def test_an_earlier_file_must_be_there(command, tmp_path):
    done = command("scripts/gpu_evidence.py", "device=cpu", f"rest={tmp_path / 'none.json'}")
    assert done.returncode == 2
    assert "none.json: there is no such file" in done.stderr
