"""Arguments of Lightning's Trainer: those that are options, and those whose place another option takes."""

import inspect
import re

import pytest
import pytorch_lightning as pl
import torch
from support import Cut, configure, metrics, run, train_in, weights

from patchbench.config.equal_time import computation
from patchbench.config.errors import Refused
from patchbench.config.identity import TRAINER, identity_of
from patchbench.config.mistakes import KNOB_ALIASES, LIGHTNING, unknown_key
from patchbench.config.options import Options

ARGUMENTS = set(inspect.signature(pl.Trainer).parameters)
OURS = set(configure().trainer)
NEUTRAL = ["profiler=simple", "detect_anomaly=true", "deterministic=true", "benchmark=true"]
COUNTING = ["max_time=00:01:00:00", "limit_val_batches=2"]


def identified(*overrides: str) -> str:
    cfg = configure(*overrides)
    return identity_of(cfg, cfg.hydra.runtime.choices)


@pytest.mark.slow
def test_every_argument_is_an_option_or_its_refusal_says_what_takes_its_place():
    told = {*LIGHTNING, *KNOB_ALIASES, *Options.__dataclass_fields__}
    assert told >= ARGUMENTS - OURS
    assert not set(LIGHTNING) & OURS
    assert set(LIGHTNING) <= ARGUMENTS, "an argument of an earlier version"
    for name in sorted(ARGUMENTS - OURS):
        line = unknown_key(f"trainer.{name}", [f"trainer.{name}=1"], "train")
        assert re.fullmatch(rf"trainer\.{name}=1 is no option: .+", line)
        assert "trainer has" not in line, "no list of all there are"


def test_an_unknown_argument_is_answered_by_the_known_ones():
    assert unknown_key("trainer.profile", [], "train").endswith("did you mean trainer.profiler?")
    assert "profiler, detect_anomaly" in unknown_key("trainer.xyz", [], "train")


def test_what_changes_the_result_is_part_of_a_run_and_the_rest_is_not():
    plain = identified()
    assert {identified(f"trainer.{knob}") for knob in NEUTRAL} == {plain}
    assert len({plain, *(identified(f"trainer.{knob}") for knob in COUNTING)}) == 3
    assert {knob.partition("=")[0] for knob in COUNTING} == {path.partition(".")[2] for path in TRAINER}
    assert identified("trainer=ddp", "trainer.max_time=null") == plain
    cfg, limited = configure(), configure("trainer.max_time=00:01:00:00")
    assert computation(cfg, cfg.hydra.runtime.choices) == computation(limited, limited.hydra.runtime.choices)


def test_a_run_with_a_limit_of_time_ends_validated_and_is_completed_as_it_is(tmp_path, micro, monkeypatch, capsys):
    def killed(*_: object) -> None:
        raise Cut

    arguments = [*micro, "trainer.max_time=00:00:00:01", "epochs=100000", "tested=last"]
    with monkeypatch.context() as patch:
        patch.setattr("patchbench.commands.train.test", killed)
        with pytest.raises(Cut):
            run(tmp_path, *arguments)
    assert re.search(r"trainer\.max_time is over: training ends after \d+ of 400,000 steps", capsys.readouterr().out)
    before, rows = weights(tmp_path), metrics(tmp_path)
    done = run(tmp_path, *arguments)
    torch.testing.assert_close(weights(tmp_path), before, rtol=0, atol=0)
    assert done["result"]["val/loss"] == rows["val/loss"].dropna().iloc[-1]
    assert rows["val/loss"].dropna().index[-1] == rows.index[-1] < 400_000


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_shorter_validation_judges_fewer_images_and_changes_nothing_else(tmp_path, micro, workers):
    arguments = [*micro, f"workers={workers}", "tested=last"]
    limit = "trainer.limit_val_batches=1"
    whole, part = (run(tmp_path / n, *arguments, *knob) for n, knob in {"4": [], "1": [limit]}.items())
    torch.testing.assert_close(weights(tmp_path / "4"), weights(tmp_path / "1"), rtol=0, atol=0)
    assert whole["result"]["test/loss"] == part["result"]["test/loss"]
    assert whole["result"]["val/loss"] != part["result"]["val/loss"]
    assert (32 * part["result"]["val/acc"]).is_integer()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*[Pp]rofiler.*:UserWarning")  # torch's own remarks on so short a training
@pytest.mark.parametrize(
    ("profiler", "words"), [("simple", "train_dataloader_next"), ("advanced", "cumtime"), ("pytorch", "aten::addmm")]
)
def test_a_profile_lies_beside_the_record_and_waiting_is_measured_as_before(tmp_path, micro, profiler, words):
    done = run(tmp_path, *micro, f"trainer.profiler={profiler}", "epochs=1", "limit_batches=8")
    [profile] = tmp_path.glob("fit-profile*.txt")
    assert words in profile.read_text()
    assert 0 < done["result"]["final/data_wait_frac"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("knobs", ["deterministic=true", "detect_anomaly=true benchmark=true"])
def test_a_run_is_the_same_with_what_only_checks_it(tmp_path, micro, knobs):
    given = [f"trainer.{knob}" for knob in knobs.split()]
    plain, checked = (run(tmp_path / n, *micro, *more, "epochs=1") for n, more in {"a": [], "b": given}.items())
    assert plain["result"]["test/loss"] == checked["result"]["test/loss"]


@pytest.mark.parametrize(
    ("knob", "said"),
    [
        ("max_time=1h", "must be days:hours:minutes:seconds, as in trainer.max_time=00:12:00:00"),
        ("limit_val_batches=0", "must be at least 1, or null for all: validation chooses the epoch that is tested"),
        ("limit_val_batches=0.5", "must be a whole number or null"),
        ("profiler=xla", "must be simple, advanced, pytorch or null"),
        ("deterministic=yes", "must be true or false, warn or null"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_a_line(tmp_path, micro, knob, said):
    with pytest.raises(Refused, match=rf"^trainer\.{re.escape(knob)} {re.escape(said)}$"):
        train_in(configure(*micro, "trainer=cpu", "logger=none", f"trainer.{knob}"), tmp_path)
