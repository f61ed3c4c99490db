"""Throughput and memory against cases with a known answer."""

import os
import subprocess
import sys
import time
from subprocess import PIPE

import pytest
import pytorch_lightning as pl
import torch
from support import task_for
from torch.utils.data import DataLoader

from patchbench.nets.cost import Cost
from patchbench.track.device import GIB, peak_resident_bytes, reset_peak_resident
from patchbench.track.meter import WARM_UP, Meter

LOAD_S, STEP_S, WRITE_S, EVERY, BATCH = 0.02, 0.03, 0.1, 4, 8


class Slow(torch.nn.Module):
    """A network whose step takes STEP_S seconds on any machine."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(STEP_S)
        return self.scale * images.mean((1, 2, 3))[:, None]

    def no_weight_decay(self) -> set[str]:
        return set()


class SlowImages(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(LOAD_S)
        return torch.ones(BATCH, 3, 4, 4), torch.zeros(BATCH, dtype=torch.int64)


class SlowToValidate(pl.Callback):
    def on_validation_end(self, *_: object) -> None:
        time.sleep(0.5)


class SlowToWrite(Meter):
    def write(self, trainer: pl.Trainer, row: dict[str, float]) -> None:
        time.sleep(WRITE_S)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Meter:
    meter = SlowToWrite(EVERY, Cost(grid_size=(2, 2), num_tokens=5, params=10, macs=1_000_000, macs_per_step=4_000_000))
    task = task_for(Slow(), 10, 24, "optim.label_smoothing=0.0", "optim.clip_grad=null")
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        callbacks=[meter, SlowToValidate()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        default_root_dir=tmp_path_factory.mktemp("run"),
    )
    trainer.fit(task, DataLoader(SlowImages(), batch_size=None), DataLoader(SlowImages(), batch_size=None))
    return meter


def test_a_step_is_its_loading_and_its_computing_and_nothing_of_validation(measured):
    final = measured.summary()
    step_s = LOAD_S + STEP_S
    assert 1000 * step_s <= final["final/step_ms_median"] <= 1000 * step_s * 1.5
    assert final["final/step_ms_p95"] >= final["final/step_ms_median"]
    assert final["final/images_per_s"] <= BATCH / step_s
    assert final["final/images_per_s"] >= 0.6 * BATCH / step_s, "half a second of validation per epoch would show"


def test_pauses_between_windows_show_in_the_wall_rate_alone(measured):
    final = measured.summary()
    step_s = BATCH / final["final/images_per_s"]
    expected = BATCH / (step_s + WRITE_S / EVERY)
    assert final["final/images_per_s_wall"] == pytest.approx(expected, rel=0.15)
    assert final["final/images_per_s_wall"] < 0.8 * final["final/images_per_s"]


def test_waiting_for_data_is_its_share(measured):
    assert measured.summary()["final/data_wait_frac"] == pytest.approx(LOAD_S / (LOAD_S + STEP_S), abs=0.1)


def test_tokens_and_flops_follow_from_images(measured):
    final = measured.summary()
    assert final["final/tokens_per_s"] == pytest.approx(5 * final["final/images_per_s"])
    per_image = 6 * (1e6 + 4e6 / BATCH)
    assert final["final/tflops_per_gpu"] == pytest.approx(per_image * final["final/images_per_s"] / 1e12)
    latest = measured.latest
    assert latest["throughput/tflops_per_gpu"] == pytest.approx(per_image * latest["throughput/images_per_s"] / 1e12)
    assert "final/mfu" not in final, "no peak is known for a CPU"


def test_wall_time_begins_with_training_and_goes_on_after_a_restart():
    """Time before training, such as that of a logger that waits for a server, is not counted."""
    meter = Meter(EVERY, Cost(grid_size=(2, 2), num_tokens=5, params=10, macs=1, macs_per_step=0))
    time.sleep(0.02)
    assert meter.summary() == {"time/wall_s": 0.0}
    meter.load_state_dict({"best": {}, "wall_s": 7.0})
    time.sleep(0.02)
    assert meter.wall_s() == 7.0
    meter.began = time.perf_counter() - 1
    assert meter.wall_s() == pytest.approx(8, abs=0.5)


def test_warm_up_is_left_out(measured):
    assert len(measured.step_s) == 24 - WARM_UP


@pytest.mark.parametrize(("rank", "counted"), [(None, True), ("1", False)])
def test_memory_of_a_process_is_that_of_its_children_but_not_of_other_ranks(rank, counted):
    script = "block = bytearray(2**28); print(flush=True); input()"
    env = {k: v for k, v in os.environ.items() if k != "LOCAL_RANK"} | ({"LOCAL_RANK": rank} if rank else {})
    before = peak_resident_bytes()
    with subprocess.Popen([sys.executable, "-c", script], env=env, stdin=PIPE, stdout=PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        grown = peak_resident_bytes() - before
        child.communicate(b"\n")
    assert (grown > GIB / 4) == counted


def test_peak_memory_counts_what_was_freed_meanwhile_and_starts_again():
    reset_peak_resident()
    before = peak_resident_bytes()
    block = torch.ones(GIB // 8)  # half a GiB of float32
    del block
    assert peak_resident_bytes() - before == pytest.approx(GIB / 2, rel=0.2)
    reset_peak_resident()
    assert peak_resident_bytes() - before < GIB / 4
