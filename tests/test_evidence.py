"""The evidence from a GPU: one command, one file, one table; on a CPU the command is rehearsed."""

import importlib.util
import json
from types import ModuleType

import pytest
import torch
from support import ROOT


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    refused, measured = evidence["rows"]
    assert "max_gmacs" in refused["larger"]
    assert refused["left_out"] == "none of the batches fits"
    assert measured["batch_size"] == 16
    assert "1048576 images a step: error: " in measured["larger"]
    assert measured["images_per_s"] > 0
    assert evidence["tests"]["counts"]["passed"] == 1 + 1, "rope and rope_mixed"
    assert evidence["tests"]["not_passed"] == {}

    table = script("readme").gpus
    assert "no file from a GPU yet" in table([evidence]), "a rehearsal is no evidence"
    measured["gpu_peak_allocated_gib"] = 1.5
    said = table([evidence | {"rehearsal": False}])
    assert f"| {measured['name']} | 16 | {measured['images_per_s']:,.0f} |" in said
    assert "not measured: none of the batches fits" in said
    assert "2 passed; all were run" in said


def test_readme_says_plainly_that_there_is_no_figure_yet_and_keeps_the_rest():
    readme = script("readme")
    text = "a\n<!-- gpu -->\nold\n<!-- end -->\nb\n<!-- main job -->\nkept\n<!-- end -->\n"
    block = readme.gpus([])
    assert "no figure of speed or memory" in block
    assert readme.written(text, "gpu", block) == text.replace("old\n", block)
    with pytest.raises(ValueError, match="<!-- none -->"):
        readme.written(text, "none", block)
