"""The scripts as commands: their help, and one line for a command line that they cannot read."""

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support import ROOT, configure

from patchbench.commands.bench_data import measure
from patchbench.config.arguments import EXTRAS, Arguments, errors_in_one_line, read

SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.py"), *ROOT.glob("scripts/*.py")])
HEAVY = ("torch", "timm", "pytorch_lightning", "wandb", "pandas", "matplotlib")
IMPORTS = f"""
import runpy, sys
del sys.argv[0]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("heavy:", *sorted({set(HEAVY)} & set(sys.modules)))
"""


def with_imports(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command; the last line of its output names the HEAVY packages that it has imported."""
    line = [sys.executable, "-c", IMPORTS, *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_a_help_with_examples_and_imports_nothing_heavy_for_it(script):
    done = with_imports(script, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *text, heavy = done.stdout.splitlines()
    assert heavy.strip() == "heavy:"
    assert f"python {script} " in "\n".join(text), "an example"
    assert max(map(len, text[: text.index("")] if "" in text else text)) <= 120


@pytest.mark.parametrize("given", ["patch=13", "embed=stem patch=8 data.img_size=[16,20]"])
def test_patches_that_do_not_cover_the_image_are_refused_without_heavy_imports(given):
    done = with_imports("train.py", *given.split(), "data=random")
    assert done.returncode == 2
    assert re.match(r"error: patch=\d+ does not cover data.img_size=\S+ exactly: use .* embed.pad=true$", done.stderr)
    assert done.stdout.strip() == "heavy:"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bench_data.py rounds=many", "rounds=many must be a whole number, as in rounds=7"),
        ("bench_data.py round=3", "round=3 is no option: did you mean rounds=?"),
        ("benchmark.py mode=test", "mode=test is unknown: use train or infer"),
        ("benchmark.py rounds=0", "rounds=0 must be at least 1"),
        ("benchmark.py peer=keras", "peer=keras is unknown: use bare or lightning or timm"),
        ("benchmark.py run=runs/a", "run=runs/a is read with mode=infer alone"),
        ("benchmark.py peer=bare compare=embed=linear", "compare=embed=linear does not go together with peer=bare"),
        ("benchmark.py peer=timm timm=x steps=9", "steps=9 does not go together with peer=timm"),
        ("benchmark.py mode=infer peer=bare", "peer=bare does not go together with mode=infer"),
        ("benchmark.py -m embed=conv", "-m is no option"),
        ("dashboard.py out=", "out= needs a value"),
        ("document.py nowhere.yaml", "nowhere.yaml: no such file"),
        ("document.py nowhere.yaml tune=true", "tune=true is no option"),
        ("gpu_evidence.py --device cpu", "--device is no option: write it without dashes, device=<value>"),
        ("gpu_evidence.py device=tpu", "device=tpu is unknown"),
        ("publish.py position tune=true", "tune=true is no option"),
        ("publish.py scale=cpu", "scale=cpu is no option"),
        ("readme.py nowhere/run.json", "nowhere/run.json"),
        ("report.py", "give the name of a study or a folder of runs"),
        ("report.py position against=none", "against=none is no option"),
        ("report.py position sclae=cpu", "sclae=cpu is no option: did you mean scale=?"),
        ("report.py tests tune=true", "tune takes one value in all runs of tests"),
        ("runs.py delete=true", "say which runs"),
        ("runs.py limit=few", "limit=few must be a whole number"),
        ("simulate_rule.py samples=10", "samples=10 are too few to measure a rate of 5 %"),
        ("study.py", "give the name of a study"),
        ("study.py position --dryrun", "--dryrun is no option: did you mean --dry-run?"),
        ("wandb_sweep.py --method bayes", "--method is no option: write it without dashes, method=<value>"),
    ],
)
def test_a_line_that_a_script_cannot_read_is_refused_in_one_line(capsys, line, message):
    script, *arguments = line.split()
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "scripts" / script))["main"](arguments)
    output, errors = capsys.readouterr()
    assert (end.value.code, output) == (2, "")
    [error] = errors.splitlines()
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize("package", EXTRAS)
def test_a_command_without_its_packages_names_the_extra(capsys, package):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(re.split("[>=]", needed)[0] == package.replace("_", "-") for needed in extras[EXTRAS[package]])
    with pytest.raises(SystemExit), errors_in_one_line():
        raise ModuleNotFoundError(f"No module named '{package}'", name=f"{package}.part")
    assert capsys.readouterr().err == (
        f"error: this command needs {package}, which is not installed: pip install -e '.[{EXTRAS[package]}]'\n"
    )
    with pytest.raises(ModuleNotFoundError), errors_in_one_line():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


def test_arguments_have_the_types_of_their_defaults_and_others_stay_as_they_are():
    line = ["position", "limit=3", "out=a/b", "tune=true", "pos=[a,b]", "test/acc>0.9", "--dry-run"]
    known = {"limit": 50, "out": Path("runs"), "tune": False, "scale": None}
    assert read("", line, known, most_names=1, flags=["dry-run"], others=True) == Arguments(
        names=["position"],
        options={"limit": 3, "out": Path("a/b"), "tune": True, "scale": None},
        others=["pos=[a,b]", "test/acc>0.9"],
        flags={"dry-run"},
        typed=["limit=3", "out=a/b", "tune=true"],
    )


def test_jobs_of_a_study_are_an_option_that_the_launcher_has():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra `slurm`")
    jobs_at_a_time = runpy.run_path(str(ROOT / "scripts" / "study.py"))["jobs_at_a_time"]
    for launcher in ("processes", "slurm", "slurm_node", "basic"):
        others = [f"hydra/launcher={launcher}"]
        options = [*jobs_at_a_time(None, [], others), *(jobs_at_a_time("4", [], others) if launcher != "basic" else [])]
        configure(*others, *options)  # which Hydra takes
    assert jobs_at_a_time("4", [], []) == ["hydra.launcher.jobs=4"]
    with pytest.raises(ValueError, match="jobs=4 is not read by hydra/launcher=basic"):
        jobs_at_a_time("4", [], ["hydra/launcher=basic"])


def test_every_way_of_reading_is_measured(tmp_path):
    sizes = {"images": 8, "height": 60, "width": 80, "quality": 90, "copies": 1, "cache": 32, "size": 24, "batch": 4}
    rows = measure(tmp_path, sizes | {"rounds": 1, "workers": 0})
    assert len({row["rung"] for row in rows}) == len(rows) > 10
    assert all(row["images_per_s"] > 0 for row in rows)
