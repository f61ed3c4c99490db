"""A foreign checkpoint or record runs no code: neither by a target, nor by an option, nor by an interpolation."""

import copy
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from support import configure

from patchbench.config.knobs import knobs
from patchbench.config.origin import origin_of, restored
from patchbench.config.trusted import TRUST, call_keys, check_target
from patchbench.train.checkpoint import AtomicCheckpoint

HOSTILE = [
    "os.system", "os.popen", "os.execv", "os._exit", "os.remove", "os.unlink", "os.rename", "os.mkdir", "sys.exit",
    "subprocess.run", "subprocess.Popen", "subprocess.check_output", "pty.spawn", "shutil.rmtree", "shutil.copyfile",
    "shutil.move", "builtins.eval", "builtins.exec", "builtins.open", "builtins.__import__", "builtins.compile",
    "importlib.import_module", "runpy.run_path", "code.interact", "pickle.load", "pickle.loads", "marshal.loads",
    "shelve.open", "pandas.read_pickle", "pandas.read_csv", "numpy.load", "numpy.fromfile", "joblib.load", "torch.load",
    "torch.hub.load", "torch.utils.cpp_extension.load_inline", "urllib.request.urlretrieve", "urllib.request.urlopen",
    "pathlib.Path.write_text", "pathlib.Path.touch", "pathlib.Path", "tempfile.mkdtemp", "webbrowser.open",
    "ctypes.CDLL", "socket.create_connection", "hydra.utils.instantiate", "timm.create_model", "antigravity", "this",
    # names of ours, of which no option at this place makes use, and others that are reached through ours
    "patchbench.machine.write_whole", "patchbench.commands.report.report_all", "patchbench.train.checkpoint.torch.load",
    "patchbench.track.wandb_run.wandb_run", "torch.optim.AdamW", "torch.optim.lr_scheduler.StepLR",
    "patchbench.data.sets.digits.np.load", "hydra_plugins.patchbench_launcher.ProcessLauncher",
]  # fmt: skip
PLACES = ("data._target_", "embed._target_", "model._target_", "budget._target_", "data.scene._target_")


@pytest.fixture(scope="module")
def origin() -> dict:
    cfg = configure("data=quadrant", "model=micro", "data.img_size=16", "patch=4")
    return origin_of(cfg, cfg.hydra.runtime.choices)


def altered(origin: dict, change: dict[str, object]) -> dict:
    """Return a copy of an origin with other values: {"compared": {"data._target_": ...}}."""
    changed = copy.deepcopy(origin)
    for part, values in change.items():
        if isinstance(values, dict):
            changed.setdefault(part, {}).update(values)
        else:
            changed[part] = values
    return changed


@pytest.mark.promise("a checkpoint names foreign code as a target", "Nothing of it is built or called")
@pytest.mark.parametrize("place", PLACES)
def test_no_hostile_target_is_built(origin, place, record_property):
    record_property("trials", len(HOSTILE))
    assert len(HOSTILE) >= 40
    for target in HOSTILE:
        with pytest.raises(ValueError, match=r"which no option in conf/ has.*set PATCHBENCH_TRUST="):
            restored(altered(origin, {"compared": {place: target}}))


PICKLED = {"_target_": "pandas.read_pickle", "filepath_or_buffer": "/tmp/x"}
HIDDEN: dict[str, dict[str, object]] = {  # targets at places that no knob has
    "in a list": {"config": {"data": {"mean": [PICKLED, 0.4, 0.3]}}},
    "in a list of lists": {"config": {"data": {"range": [[PICKLED]]}}},
    "in a size": {"config": {"data": {"img_size": [PICKLED, 8]}}},
    "in a mapping in a list": {"config": {"optim": {"betas": [{"x": PICKLED}]}}},
    "in the classes": {"classes": ["a", PICKLED]},
    "in a knob of no option": {"config": {"data": {"foo": {"bar": [PICKLED]}}}},
    "in a key with brackets": {"config": {"data": {"foo": {"x[_target_]": "pandas.read_pickle"}}}},
    "in a key with a point": {"config": {"data": {"foo": {"x._target_": "pandas.read_pickle"}}}},
    "below a knob": {"config": {"data": {"foo": {"bar": {"_target_": "pandas.read_pickle"}}}}},
    "in a scheme": {"config": {"pos": {"learned": {"x": [PICKLED]}}}},
    "as arguments": {"config": {"data": {"_args_": ["/tmp/x"]}}},
    "as arguments below": {"config": {"data": {"foo": {"_args_": ["/tmp/x"]}}}},
}


@pytest.mark.promise("a checkpoint hides a target in a list, or in a key", "Nothing of it is called")
@pytest.mark.parametrize("place", HIDDEN)
def test_no_hidden_target_is_built(origin, place):
    """The origin is refused, or its hidden target is not built."""
    change = copy.deepcopy(HIDDEN[place])
    hostile = copy.deepcopy(origin)
    for group, knobs_ in change.pop("config", {}).items():
        hostile["config"][group] = {**hostile["config"][group], **knobs_}
    hostile |= change
    with suppress(ValueError):
        assert targets_of(hostile) == targets_of(origin)


def targets_of(origin: dict) -> list[tuple[str, object]]:
    return list(call_keys(OmegaConf.to_container(restored(origin), resolve=False), ""))


@pytest.mark.parametrize("target", ["torch.optim.lr_scheduler.StepLR", "torch.optim.Optimizer.load", "torch.load"])
def test_of_torch_only_optimizers_are_built_and_only_as_optimizers(target):
    check_target("optim.optimizer._target_", "torch.optim.RMSprop")
    with pytest.raises(ValueError, match=target):
        check_target("optim.optimizer._target_", target)


def test_every_target_of_conf_is_trusted_at_its_place():
    for path, found in knobs().items():
        if path.endswith("_target_"):
            for target in set(map(str, found.values())):
                check_target(path, target)


@pytest.mark.promise("a checkpoint names a file outside of conf/ as an option", "It is refused")
@pytest.mark.parametrize(
    "options",
    [
        {"embed": "../../../../../tmp/evil"}, {"embed": "../data/digits"}, {"embed": "/tmp/evil"},
        {"embed": "conv.yaml"}, {"embed": "conv,linear"}, {"embed": "conv +x=1"}, {"embed": ""},
        {"pos": ["learned", "../../evil"]},
        {"pos": ["learned] +x=[1"]}, {"hydra/launcher": "../evil"}, {"nothing": "conv"}, {"embed": "${oc.env:HOME}"},
    ],
)  # fmt: skip
def test_no_option_leads_out_of_conf(origin, options, tmp_path):
    with pytest.raises(ValueError, match="the file names"):
        restored(altered(origin, {"options": options}))


@pytest.mark.promise("a checkpoint holds an interpolation, as of the environment", "It is refused unresolved")
@pytest.mark.parametrize(
    "change",
    [
        {"config": {"runs_dir": "${oc.env:HOME}"}},
        {"config": {"data": {"scene": {"noise": "${oc.env:HOME}"}}}},
        {"config": {"data": {"classes": ["a", "${oc.env:HOME}"]}}},
        {"classes": ["a", "${oc.env:HOME}"]},
    ],
)
def test_no_interpolation_of_a_file_is_resolved(origin, change):
    with pytest.raises(ValueError, match="an interpolation, which no run writes"):
        restored(altered(origin, change))


def test_a_run_of_ours_is_restored_and_a_part_of_ones_own_if_it_is_trusted(origin, tmp_path, monkeypatch):
    again = restored(origin)
    assert OmegaConf.select(again, "data.scene.contrast") == origin["config"]["data"]["scene"]["contrast"]
    (tmp_path / "own_part.py").write_text("from os import system\nclass Mine:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"set PATCHBENCH_TRUST=own_part$"):
        check_target("data._target_", "own_part.Mine")
    monkeypatch.setenv(TRUST, "other, own_part")
    check_target("data._target_", "own_part.Mine")
    with pytest.raises(ValueError, match=r"own_part\.system"):
        check_target("data._target_", "own_part.system")
    with pytest.raises(ValueError, match=r"own_parts\.Mine"):
        check_target("data._target_", "own_parts.Mine")


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", ["evaluate.py ckpt={}", "scripts/explain.py ckpt={}", "scripts/export.py ckpt={} out={}"]
)
def test_no_command_runs_what_a_checkpoint_names(command, origin, tmp_path, script):
    marker, path = tmp_path / "ran", tmp_path / "best.ckpt"
    hostile = altered(origin, {"compared": {"data._target_": "pathlib.Path.touch", "data._args_": [str(marker)]}})
    AtomicCheckpoint().save_checkpoint({"patchbench": hostile, "state_dict": {"x": torch.zeros(1)}}, path)
    done = command(*script.format(path, tmp_path / "out.safetensors").split())
    assert done.returncode == 2, done.stdout + done.stderr
    assert "data._target_=pathlib.Path.touch, which no option in conf/ has" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(marker).exists()
