"""The functions of the package do what the commands do."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch
from support import MICRO, ROOT, configure, cut_at, weights

import patchbench
from patchbench.commands.build import build_net, build_source

QUICK = [*MICRO, "epochs=1", "logger=csv"]


def test_a_network_is_the_one_that_the_command_line_begins_with():
    words = ["data.img_size=16", "patch=4", "model=micro", "pos=rope", "seed=3"]
    torch.manual_seed(3)
    cfg = configure(*words)
    expected = build_net(cfg, build_source(cfg)).state_dict()
    torch.testing.assert_close(patchbench.net(*words).state_dict(), expected, rtol=0, atol=0)


def test_a_network_takes_no_random_numbers_from_the_program_that_asks_for_it():
    torch.manual_seed(5)
    patchbench.net("model=micro", "data.img_size=16", "patch=4")
    drawn = torch.rand(3)
    torch.manual_seed(5)
    torch.testing.assert_close(drawn, torch.rand(3), rtol=0, atol=0)


def test_a_network_begins_with_the_weights_of_another_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patchbench.run(*QUICK)
    [file] = tmp_path.glob("runs/*/best.ckpt")
    old, new = patchbench.trained(file), patchbench.net(*MICRO[:3], f"model.init_from={file}", "seed=9")
    torch.testing.assert_close(new.blocks.state_dict(), old.blocks.state_dict(), rtol=0, atol=0)


def test_a_list_of_options_is_refused():
    with pytest.raises(TypeError, match="embed=overlap"):
        patchbench.net(["embed=overlap", "pos=rope"])  # type: ignore[arg-type]


def test_ctrl_c_saves_the_run_and_the_same_call_resumes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [*QUICK[:-2], "epochs=2", "logger=csv"]
    with monkeypatch.context() as patch:
        cut_at(patch, 3, "Ctrl-C")
        with pytest.raises(KeyboardInterrupt):
            patchbench.run(*words)
    assert list(tmp_path.glob("runs/*/last.ckpt"))
    assert not list(tmp_path.glob("runs/*/run.json"))
    patchbench.run(*words)
    assert "resuming from" in capsys.readouterr().out


def test_a_run_has_its_record_and_its_network(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record = patchbench.run(*QUICK)
    [folder] = (tmp_path / "runs").iterdir()
    assert folder.name.endswith(record["identity"])
    net = patchbench.trained(folder / "best.ckpt")
    assert not net.training
    state = {name.removeprefix("net."): value for name, value in weights(folder, "best.ckpt").items()}
    torch.testing.assert_close(dict(net.state_dict()), state, rtol=0, atol=0)
    split = build_source(configure(*QUICK)).splits()["test"]
    images, labels = split.read(range(int(record["result"]["test/images"])))
    right = (net(net.normalize(images / 255)).argmax(1) == labels).float().mean()
    assert float(right) == pytest.approx(record["result"]["test/acc"], abs=1e-3)
    capsys.readouterr()
    assert patchbench.run(*QUICK) == record
    assert "This run was done before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["embd=conv"], "embd"),
        (["embed=konv"], "embed=konv"),
        (["patch=13"], "patch=13"),
        (["optim.lr=-1", *QUICK], "optim.lr=-1"),
    ],
)
def test_what_the_command_line_refuses_is_refused_in_the_same_line(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        patchbench.run(*words)
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"] == []


def test_the_examples_of_the_docs_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL):
        code = block.replace('"runs/<run>/best.ckpt"', "str(next(pathlib.Path('runs').glob('*/best.ckpt')))")
        exec(compile(f"import pathlib\n{code}", "docs/python.md", "exec"), {})


def test_the_package_has_its_version_and_no_other_names():
    assert re.fullmatch(r"\d+\.\d+\.\d+", patchbench.__version__)
    with pytest.raises(AttributeError, match="no attribute 'nets_'"):
        _ = patchbench.nets_


@pytest.mark.slow
def test_an_installed_package_has_all_options_and_needs_no_checkout(tmp_path):
    source = tmp_path / "source"
    for name in ("src", "conf"):
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*pip, str(source)], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    options = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert {path.relative_to(tmp_path / "site/patchbench/conf") for path in tmp_path.glob("site/**/*.yaml")} == options
    code = "import patchbench as p; print(p.__file__); print(type(p.net('embed=overlap', 'pos=rope')).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [str(tmp_path / "site/patchbench/__init__.py"), "ViT"], done.stderr
