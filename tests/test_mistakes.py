"""Mistakes on the command line: each ends in one line with the option as typed, and the cure."""

import contextlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from support import CONF, ROOT, configure, every, train_in

from patchbench.commands.build import build_source, check_options
from patchbench.commands.draft import check_run
from patchbench.commands.reopen import naming_own_options
from patchbench.commands.values import check_values
from patchbench.config.errors import Refused, refusing
from patchbench.config.knobs import check_schemes, knobs
from patchbench.config.names import command_line
from patchbench.config.typed import flags_last, refuse_added_options
from patchbench.sweep.check import compose_cell

SMALL = ["model=micro", "data.img_size=16", "patch=4", "epochs=1", "limit_batches=2", "trainer=cpu", "logger=csv"]

# A line as it is typed, after `python train.py` or the script that it begins with, and what the error must hold.
MISTAKES = {
    "'embed=conv, patch=8'": ["write several options as separate arguments, embed=conv patch=8"],
    "optim.lr=abc": ["optim.lr=abc must be a number", "optim.lr=0.0005"],
    "optim.lr=1e-3x": ["optim.lr=1e-3x must be a number"],
    "optim.lr=nan": ["optim.lr=nan must be a number"],
    "optim.lr=-1": ["optim.lr=-1 must not be negative"],
    "optim.lr=[1e-3]": ["optim.lr=[0.001] must be a number"],
    "optim.weight_decay=null": ["optim.weight_decay=null must be a number"],
    "optim.betas=[0.9]": ["optim.betas=[0.9] must be a list of 2 numbers", "[0.9,0.999]"],
    "optim.betas=[0.9,2]": ["torch.optim.AdamW", "2"],
    "optim.clip_grad=0": ["optim.clip_grad=0", "null for no limit"],
    "optim.label_smoothing=2": ["optim.label_smoothing=2 must be between 0 and 1"],
    "optim.loss=bca": ["optim.loss=bca must be cross_entropy or bce", "optim.loss=cross_entropy"],
    "optim.target_threshold=0.2": ["optim.target_threshold=0.2 is read with optim.loss=bce alone"],
    "loss=bce": ["loss=bce is no option", "did you mean optim.loss?"],
    "optim.warmup=10": ["optim.warmup=10 must be between 0 and 1"],
    "optim.optimizer._target_=torch.optim.SGD": ["_target_=torch.optim.SGD takes no betas", "use optim=sgd"],
    "optim.optimizer._target_=torch.optim.Lion": ["_target_=torch.optim.Lion is no class or function"],
    "+optim.optimizer.amsgrd=true": ["amsgrd=true is no argument", "did you mean optim.optimizer.amsgrad?"],
    "~optim.optimizer.fused": ["~optim.optimizer.fused", "optim.optimizer.fused=<value>"],
    "optim=adam": ["optim=adam", "did you mean optim=adamw?", "conf/optim/<name>.yaml"],
    "optim=muom": ["optim=muom", "did you mean optim=muon?", "adamw, lamb, lion, muon, sgd"],
    "optim=muon optim.momentum=2": ["optim.optimizer", "2"],
    "freeze=head": ["freeze=head is unknown: use trunk or embed or null"],
    "freeze=[trunk]": ["freeze=[trunk] must be text or null"],
    "experiment=deit": ["experiment=deit is no option", "did you mean experiment=deit_tiny?"],
    "experiment=": ["experiment= is no option", "deit_tiny"],
    "experiment=deit_tiny": ["data.root"],
    "'experiment=[deit_tiny,small_digits]'": ["experiment takes one", "train.py -m experiment=deit_tiny,small_digits"],
    "epochs=ten": ["epochs=ten must be a whole number", "epochs=15"],
    "epochs=1e3": ["epochs=1e3", "must be a whole number"],
    "seed=one": ["seed=one must be a whole number", "seed=0"],
    "seed=1.5": ["seed=1.5 must be a whole number"],
    "seed=null": ["seed=null must be a whole number"],
    "seed=-1": ["seed=-1 must be at least 0"],
    "seed=9223372036854775808": ["seed=9223372036854775808", "below 2**63"],
    "embed=null": ["embed=null is no option", "conv"],
    "embed=": ["embed= is no option", "conv"],
    "ckpt=": ["ckpt= needs a value", "ckpt=<value>"],
    "data=[quadrant]": ["data=[quadrant] is a list", "write data=quadrant"],
    "embed.kernel=3": ["embed.kernel=3", "did you mean embed.kernel_size, of embed=overlap"],
    "embed.kernel_size=5": ["embed.kernel_size=5", "belongs to embed=overlap"],
    "embed.norm=3 embed=stem": ["embed.norm=3 must be text", "embed.norm=batch"],
    "embed.pad=maybe": ["embed.pad=maybe must be true or false", "embed.pad=false"],
    "augment.crop.pad=0.2": ["augment.crop.pad=0.2", "augment=light"],
    "pos.rope.rotation.temperature=3": ["pos.rope.rotation.temperature=3", "add pos=rope"],
    "logger.wandb.project=x": ["logger.wandb.project=x", "add logger=wandb"],
    "lr=1e-3": ["lr=1e-3", "did you mean optim.lr?"],
    "learning_rate=1e-3": ["learning_rate=1e-3", "did you mean optim.lr=?"],
    "max_epochs=3": ["max_epochs=3", "did you mean epochs=?"],
    "+trainer.max_epochs=3": ["+trainer.max_epochs=3", "did you mean epochs=?"],
    "+trainer.xyz=true": ["+trainer.xyz=true", "trainer has accelerator"],
    "+experiment=foo": ["experiment=foo is no option", "deit_tiny"],
    "+experiment=deit_tiny": ["+experiment=deit_tiny", "change it by experiment=deit_tiny"],
    "--config-name mine": ["--config-name=mine", "conf/mine.yaml", "defaults: [train, _self_]"],
    "+optim.lr=3": ["+optim.lr=3", "optim.lr=3"],
    "++optim.lrr=3": ["++optim.lrr=3", "did you mean optim.lr?"],
    "~logger": ["~logger", "logger=none"],
    "'pos=learned rope'": ["pos=learned rope", "'pos=[learned,rope]'"],
    "pos=learned+rope": ["pos=learned+rope", "'pos=[learned,rope]'"],
    "pos=learned,rope": ["pos=learned,rope", "add -m", "'pos=[learned,rope]'"],
    "'seed=range(3)'": ["seed=range(3)", "add -m"],
    "'pos=[learned,rope'": ["pos=[learned,rope", "brackets"],
    "'embed=[conv,linear]'": ["embed=[conv,linear]", "train.py -m embed=conv,linear"],
    "embed conv": ["embed conv", "write embed=conv"],
    "embed:conv": ["embed:conv", "write embed=conv"],
    "embed=conv, linear": ["embed=conv, linear", "write embed=conv,linear"],
    "optim.lr = 1e-3": ["optim.lr = 1e-3", "write optim.lr=1e-3"],
    "'patch=[4,' '4]'": ["patch=[4, 4]", "write 'patch=[4,4]'"],
    "--embed conv": ["--embed conv", "without dashes, embed=conv"],
    "--batch-size 128": ["--batch-size 128", "without dashes, batch_size=128"],
    "--lr 1e-3": ["--lr 1e-3", "did you mean optim.lr?"],
    "--multi seed=0": ["--multi", "did you mean --multirun?"],
    "--dryrun -m seed=0": ["--dryrun", "did you mean --dry-run?"],
    "--cfg yaml": ["--cfg yaml", "job or hydra or all"],
    "seed=0 -m ptach=4": ["ptach=4", "did you mean patch?"],
    "-m 'optim.lr=interval(1e-3,1e-2)'": ["optim.lr=interval(1e-3,1e-2)", "hydra/sweeper=search"],
    "-m hydra/launcher=slrm": ["hydra/launcher=slrm", "did you mean hydra/launcher=slurm?"],
    "-m hydra.launcher.jobz=3": ["hydra.launcher.jobz=3", "did you mean hydra.launcher.jobs?"],
    "-m hydra.launcher.partition=gpu": ["hydra.launcher.partition=gpu", "hydra/launcher=slurm"],
    "hydra.launcher.jobs=2": ["hydra.launcher.jobs=2", "add -m"],
    "data=imagefolder data.root=u=v": ["data.root=u=v", "'data.root=\"u=v\"'"],
    "data=imagefolder data.root=/data/数据": ["/data/数据", "'data.root=\"/data/数据\"'"],
    "data=imagefolder 'data.root=/a(b)'": ["data.root=/a(b)", "'data.root=\"/a(b)\"'"],
    "data=imagefolder 'data.root=~/x'": ["data.root=~/x", "write data.root=/"],
    "data=imagefolder data.root=2024": ["data.root=2024 must be text", "'data.root=\"2024\"'"],
    "data=imagefolder 'data.root=${oc.env:NOT_SET}'": ["data.root=${oc.env:NOT_SET}", "export NOT_SET"],
    "'optim.lr=${oc.env:HOME}'": ["optim.lr=${oc.env:HOME}", "'optim.lr=\"${oc.decode:${oc.env:HOME}}\"'"],
    "'epochs=${nothing}'": ["epochs=${nothing}", "no option nothing"],
    "'epochs=${env:X}'": ["epochs=${env:X}", "oc.env"],
    "data=mnist": ["data=mnist", "data=torchvision data.name=MNIST"],
    "model=resnet50": ["model=resnet50", "model=timm model.name=<name>"],
    "trainer=gpu": ["trainer=gpu", "did you mean trainer=auto?"],
    "trainer.precision=16": ["trainer.precision=16 must be auto, 32-true or bf16-mixed"],
    "trainer.strategy=dp": ["trainer.strategy=dp must be auto, ddp or fsdp"],
    "trainer.profiler=fast": ["trainer.profiler=fast must be simple, advanced, pytorch or null"],
    "+trainer.profiler=simple": ["+trainer.profiler=simple", "trainer.profiler=simple"],
    "trainer.max_time=3600": [
        "trainer.max_time=3600 must be days:hours:minutes:seconds, as in trainer.max_time=00:12:00:00"
    ],
    "trainer.max_time=01:00:00": ["trainer.max_time=01:00:00 must be days:hours:minutes:seconds"],
    "trainer.max_epochs=3": ["trainer.max_epochs=3", "did you mean epochs=?"],
    "trainer.val_check_interval=0.5": ["trainer.val_check_interval=0.5", "trainer.limit_val_batches="],
    "+trainer.plugins=x": ["+trainer.plugins=x is no option", "train/trainer.py"],
    "trainer.proflier=simple": ["did you mean trainer.profiler?"],
    "trainer.devices=[0,1]": ["trainer.devices=[0,1] must be a whole number or auto"],
    "patch=16x16": ["patch=16x16 must be a whole number or a list of whole numbers"],
    "patch=[4,4,4]": ["patch=[4,4,4] is no size in pixels"],
    "model.layerscale=1": ["model.layerscale=1", "did you mean model.layer_scale?"],
    "model.layer_scale=0.0": ["model.layer_scale=0.0 must be a number above 0, or null"],
    "model.layer_scale=small": ["model.layer_scale=small must be a number or null"],
    "model.num_heads=0": ["model.num_heads=0 must be at least 1"],
    "model.drop_path=1.5": ["model.drop_path=1.5 must be between 0 and 1"],
    "embed=stem patch=16 batch_size=1": ["batch_size=1", "batch norm", "embed.norm=layer"],
    "workers=-1": ["workers=-1", "auto"],
    "runs_dir=/proc/nothing": ["/proc/nothing", "give another runs_dir=<folder>"],
    "'pos=[learned,ropee]'": ["pos=ropee is no option", "pos=rope"],
    "ptach=8": ["ptach=8", "did you mean patch?"],
    "+ptach=8": ["+ptach=8", "did you mean patch?"],
    "embed.pading=1 embed=overlap": ["embed.pading=1", "did you mean embed.padding?"],
    "+model.dept=3": ["dept"],
    "eval.shift=wider": ["eval.shift=wider", "canvas"],
    "'eval.img_size=[90]' data.img_size=64 patch=16": ["eval.img_size=90", "patch=16", "data.img_size=80"],
    "patch=7 data.img_size=64": ["patch=7", "data.img_size=64", "data.img_size=63", "embed.pad=true"],
    "pos=rope model.embed_dim=18 model.num_heads=3": ["head_dim=6", "model.embed_dim=12"],
    "pos=sincos model.embed_dim=6 model.num_heads=1": ["model.embed_dim=6", "multiple of 4"],
    "'pos=[learned,sincos]'": ["learned and sincos both fill"],
    "data=imagefolder data.root=/nowhere": ["data.root=/nowhere", "train/<class>/<image>", "data=digits"],
    "data=imagefolder": ["data.root"],
    "trainer.accelerator=gpu": ["trainer.accelerator=gpu", "trainer=cpu"],
    "ckpt=/nowhere/last.ckpt": ["ckpt=/nowhere/last.ckpt", "no such file"],
    "trainer.micro_batch=some": ["trainer.micro_batch=some", "auto"],
    "trainer.micro_batch=5": ["trainer.micro_batch=5", "batch_size=32", "trainer.micro_batch=1|2|4|8|16|32"],
    "patch=2 data=random data.img_size=224 model=base": ["12,544 tokens", "max_gmacs=500", "allow_cost=true"],
    "model.init_from=vit_tiny_patch16_242": ["did you mean vit_tiny_patch16_224?"],
    "epochs=0": ["epochs=0"],
    "workers=many": ["workers=many", "auto"],
    "evaluate.py": ["ckpt must be given"],
    "evaluate.py best.ckpt": ["best.ckpt", "write ckpt=best.ckpt"],
    "evaluate.py ckpt=none.ckpt": ["ckpt=none.ckpt", "no such file"],
    "evaluate.py ckpt=none.ckpt data.root=/x": ["data.root=/x", "did you mean data_root?"],
    "evaluate.py ckpt=none.ckpt embed=conv": ["embed=conv", "ckpt"],
    "evaluate.py ckpt=none.ckpt trainer.devices=two": ["trainer.devices=two must be a whole number or auto"],
    "scripts/analyze.py ckpt=none.ckpt images=many": ["images=many must be a whole number or null"],
    "scripts/export.py ckpt=none.ckpt out=x.pth": ["out=x.pth", "out=x.safetensors"],
    "scripts/prepare_data.py data=digits out=x size=abc": ["size=abc", "size=16"],
    "scripts/explain.py data_root=/x": ["data_root=/x", "data.root=/x"],
    "scripts/explain.py image=first": ["image=first is no file"],
    "scripts/wandb_sweep.py embed=conv,cnv": ["embed=cnv", "did you mean embed=conv?"],
    "scripts/runs.py scale=cpu": ["scale=cpu", "study=<name>"],
    "scripts/report.py nowhere": ["nowhere", "studies are"],
    "scripts/benchmark.py embed=convv": ["embed=convv is no option", "did you mean embed=conv?"],
    "scripts/benchmark.py compare=embed=convv": ["embed=convv is no option", "did you mean embed=conv?"],
    "scripts/benchmark.py lr=1e-3": ["lr=1e-3", "did you mean optim.lr?"],
    "scripts/benchmark.py embed": ["embed needs a value", "conv"],
    "scripts/benchmark.py patch=7 trainer=cpu": ["patch=7", "data.img_size=63"],
    "scripts/benchmark.py peer=timm": ["peer=timm needs timm=<folder>", "git clone"],
    "scripts/benchmark.py peer=timm timm=/nowhere": ["timm=/nowhere holds no train.py", "git clone"],
    "scripts/bench_data.py images=0": ["images=0 must be at least 1"],
    "scripts/dashboard.py runs_dir=/nowhere": ["runs_dir=/nowhere", "no folder"],
}


@pytest.fixture
def typed(monkeypatch, capsys) -> Callable[[str], tuple[int, str, str]]:
    """Run a script in this process with a command line; return exit code, stdout and stderr."""

    def typed(line: str) -> tuple[int, str, str]:
        script, *arguments = shlex.split(line if re.match(r"\S+\.py\b", line) else f"train.py {line}")
        if script == "train.py":
            given = {argument.partition("=")[0] for argument in arguments}
            arguments = [*(each for each in SMALL if each.partition("=")[0] not in given), *arguments]
        GlobalHydra.instance().clear()
        monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
        monkeypatch.setattr(sys, "argv", [str(ROOT / script), *arguments])
        for name in ("HYDRA_FULL_ERROR", "PATCHBENCH_RANKS", "PATCHBENCH_SWEEP"):
            monkeypatch.setenv(name, "")  # so that it is restored
            monkeypatch.delenv(name)
        main = runpy.run_path(str(ROOT / script))["main"]
        with pytest.raises(SystemExit) as end:
            main(arguments) if "arguments" in main.__annotations__ else main()
        assert isinstance(end.value.code, int)
        return end.value.code, *capsys.readouterr()

    return typed


@pytest.mark.parametrize("line", every(MISTAKES, 4))
@pytest.mark.skipif(torch.cuda.is_available(), reason="one of them asks for a GPU that is not there")
def test_a_mistake_is_said_in_one_line_with_its_cure(typed, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    code, output, errors = typed(line)
    assert (code, output) == (2, ""), errors
    [error] = errors.splitlines()
    assert error.startswith("error: ")
    for words in MISTAKES[line]:
        assert words in error
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing is left behind"


@pytest.mark.parametrize("line", ["++optim.lr=1e-2", "+optim.optimizer.amsgrad=true", "seed=0 -m embed=conv --cfg=job"])
def test_what_hydra_takes_and_this_project_reads_is_accepted(line, monkeypatch):
    arguments = flags_last([*SMALL, *line.split()], "train")
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    refuse_added_options(overrides)
    cfg = configure(*overrides)
    check_values(cfg)
    check_options(cfg)


def test_flags_are_read_in_any_place():
    assert flags_last(["a=b", "-m", "c=d"], "train") == ["a=b", "c=d", "-m"]
    assert flags_last(["--config-name", "mine", "a=b", "--cfg=job"], "train") == [
        "a=b",
        "--config-name",
        "mine",
        "--cfg=job",
    ]
    line = "--dry-run -m hydra/launcher=slurm hydra.launcher.partition=gpu embed=conv,linear"
    assert flags_last(line.split(), "train") == ["embed=conv,linear", "hydra.launcher.dry_run=true", "-m"]


# An option of each knob that needs no files, and the knob.
FILES = {"fashion_mnist", "imagefolder", "hf", "shards", "cached", "cifar10", "cifar100", "torchvision"}
LEAVES = [
    (min(options), knob)
    for knob, owners in sorted(knobs().items())
    if not knob.startswith("hydra") and not knob.endswith("_target_")
    if (options := [o for o, v in owners.items() if o.partition("=")[2] not in FILES and not isinstance(v, dict)])
]
WRONG = ("abc", None, [], -1, -1.0, float("nan"), True, {"a": 1})


def with_value(option: str, knob: str, value: object) -> DictConfig | None:
    """Compose a small run in which a knob has a value; None if the type of the option does not allow the value."""
    group = option.partition("=")[0]
    kept = [each for each in SMALL if each.partition("=")[0] != group and not (group == "data" and "img_size" in each)]
    cfg = configure(*kept, option)
    try:
        OmegaConf.update(cfg, knob, value)
    except OmegaConfBaseException:
        return None
    return cfg


@pytest.mark.parametrize("option", every(sorted({option for option, _ in LEAVES}), 4))
def test_a_value_of_a_wrong_type_is_refused_by_its_name_or_is_none(option):
    """Every knob in conf/ gets text, null, a list and a mapping, and its annotation decides."""
    own = [knob for owner, knob in LEAVES if owner == option]
    refused = 0
    for knob in own:
        for value in ("abc", None, [], {"a": 1}):
            cfg = with_value(option, knob, value)
            if cfg is None:
                continue
            try:
                check_values(cfg)
            except ValueError as error:
                message = str(error)
                assert message.startswith((f"{knob}=", f"{option.partition('=')[0]}."))
                assert " must be " in message or " is no " in message
                refused += 1
    assert refused or all(".options." in knob for knob in own), "but of timm's own arguments"


@pytest.mark.slow
@pytest.mark.parametrize(("option", "knob"), LEAVES)
def test_no_value_ends_in_a_traceback(tmp_path, option, knob):
    for value in WRONG:
        if (cfg := with_value(option, knob, value)) is not None:
            with contextlib.suppress(Refused), refusing():
                check_values(cfg)
                check_run(cfg, build_source(cfg), tmp_path)


@pytest.mark.parametrize("line", ["train.py --help", "scripts/runs.py --help"])
def test_a_reader_that_closes_its_pipe_gets_no_traceback(line):
    for reader, lines in {"head -n 1": 1, "true": 0}.items():  # the second is gone before anything is printed
        script = f"{shlex.quote(sys.executable)} {line} | {reader}"
        done = subprocess.run(script, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.stdout.count("\n") == lines
        assert done.stderr == ""


def commands_in(text: str) -> Iterator[str]:
    """List the lines of a text that start a script of this project, without their comments."""
    for line in text.splitlines():
        if match := re.search(r"(?:python|torchrun|sbatch)\s+(?:-\S+\s+)*\S+\.py\b[^`#<]*", line):
            yield re.split(r"\s{3,}", match[0])[0]


DOCUMENTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("*.py"),
    *(
        p
        for d in ("scripts", "conf", "src", "experiments")
        for p in (ROOT / d).rglob("*")
        if p.suffix in (".py", ".md", ".yaml")
    ),
]


def test_commands_that_are_shown_work_in_every_shell():
    """zsh reads brackets, `*` and `?` without quotes as file patterns, and refuses the line if no file matches."""
    shown = [(path, line) for path in DOCUMENTS for line in commands_in(path.read_text(encoding="utf-8"))]
    assert len(shown) > 50
    for path, line in shown:
        bare = re.sub(r"'[^']*'", "", line)
        options = [word for word in bare.split() if "=" in word and set("[]*?") & set(word)]
        assert not options, f"{path}: {line}"


def test_the_options_of_a_run_are_written_for_every_shell():
    levels = {"embed": "conv", "patch": [4, 8], "pos": "learned+rope", "data": "digits", "augment": "none"}
    line = command_line({**levels, "model": "tiny", "seed": 0})
    assert shlex.split(line)[1:3] == ["patch=[4,8]", "pos=[learned,rope]"]
    assert "'patch=[4,8]' 'pos=[learned,rope]'" in line


def test_a_scheme_in_a_file_of_another_package_is_refused(tmp_path, monkeypatch):
    shutil.copytree(CONF / "pos", tmp_path / "pos")
    (tmp_path / "pos" / "mine.yaml").write_text((CONF / "pos" / "rope.yaml").read_text())
    monkeypatch.setattr("patchbench.config.knobs.CONF", tmp_path)
    with pytest.raises(ValueError, match=r"conf/pos/mine.yaml must begin with the line `# @package pos.mine`"):
        check_schemes()


def test_a_finished_run_says_that_it_reads_no_checkpoint(tmp_path, capsys):
    cfg = configure(*SMALL)
    train_in(cfg, tmp_path / "run")
    cfg.ckpt = str(tmp_path / "run" / "last.ckpt")
    train_in(cfg, tmp_path / "run")
    said = capsys.readouterr().out
    assert f"ckpt={cfg.ckpt} is not read" in said
    assert said.count("is not read") == 1


def test_a_finished_run_names_the_options_that_ask_for_what_it_has_not(tmp_path, capsys):
    cfg = configure(*SMALL)
    train_in(cfg, tmp_path / "run")
    wishes = ("logger=wandb", "logger.tables=true", "logger.checkpoints=true", "keep_checkpoints=none")
    train_in(configure(*SMALL, *wishes), tmp_path / "run")
    said = capsys.readouterr().out
    assert [wish for wish in wishes if f"{wish} is not read: this run is done" not in said] == []
    assert (tmp_path / "run" / "best.ckpt").exists()


def test_a_refusal_of_moved_data_names_the_option_of_the_command():
    with pytest.raises(FileNotFoundError, match=r"^data_root=/x: give data_root=<folder>$"), naming_own_options():
        raise FileNotFoundError("data.root=/x: give data.root=<folder>")


@pytest.mark.parametrize("nesterov", ["false", "true"])
def test_sgd_trains(tmp_path, nesterov):
    cfg = configure(*SMALL, "optim=sgd", f"optim.nesterov={nesterov}")
    check_values(cfg)
    train_in(cfg, tmp_path)
    assert "lr-SGD" in (tmp_path / "metrics.csv").read_text()


def test_a_cell_is_composed_from_the_file_that_the_sweep_was_started_with():
    GlobalHydra.instance().clear()
    cell = compose_cell([*SMALL, "hydra.sweep.dir=x"], 0, "explain")
    assert not isinstance(cell, str), cell
    assert "image" in cell.cfg
    GlobalHydra.instance().clear()
