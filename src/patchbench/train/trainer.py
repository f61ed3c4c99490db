"""Lightning's Trainer, with the options that a run may choose and no others."""

import logging
import os
import re
import warnings
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, ProgressBar
from pytorch_lightning.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler

from patchbench.train.checkpoint import AtomicCheckpoint
from patchbench.train.ranks import rank_environment, refuse_other_ranks
from patchbench.train.shard import Averaged, Sharded

# float16 needs scaled gradients, and a fused optimizer unscales them only after they are clipped
Precision = Literal["auto", "32-true", "bf16-mixed"]
PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def make_trainer(
    *,
    accelerator: Literal["auto", "cpu", "gpu"],
    devices: int | Literal["auto"],
    num_nodes: int,
    strategy: Literal["auto", "ddp", "fsdp"],
    precision: Precision,
    accumulate: int,
    micro_batch: int | Literal["auto"] | None,
    timeout_s: float | int | None,
    max_time: str | int | None,
    limit_val_batches: int | None,
    profiler: Literal["simple", "advanced", "pytorch"] | None,
    detect_anomaly: bool,
    deterministic: bool | Literal["warn"] | None,
    benchmark: bool | None,
    max_epochs: int,
    out_dir: Path,
    callbacks: list[Callback],
) -> pl.Trainer:
    """Build the trainer. ValueError for devices that do not exist.

    precision: auto is bf16-mixed on a GPU that computes in it, else 32-true. micro_batch: only checked here;
    train/memory.py uses it, with the batch size. timeout_s: likewise; train/watchdog.py uses it. max_time and all until
    benchmark: see Lightning. Its further arguments are set here, or other options of ours take their place.
    """
    gpus = torch.cuda.device_count()
    if accelerator == "gpu" and not gpus:
        raise ValueError("trainer.accelerator=gpu, but torch sees no CUDA GPU here: use trainer=cpu, or trainer=auto")
    on_gpu = gpus > 0 and accelerator != "cpu"
    if on_gpu and isinstance(devices, int) and devices > gpus:
        raise ValueError(f"trainer.devices={devices}, but torch sees {gpus} GPU(s) here: use trainer.devices={gpus}")
    for name, count in {"devices": devices, "num_nodes": num_nodes, "accumulate": accumulate}.items():
        if (count != "auto" and not (isinstance(count, int) and count >= 1)) or (name, count) == ("accumulate", "auto"):
            raise ValueError(f"trainer.{name}={count} is no number of {name}: use 1 or more")
    if micro_batch not in (None, "auto") and not (isinstance(micro_batch, int) and micro_batch >= 1):
        raise ValueError(f"trainer.micro_batch={micro_batch} must be auto, a number of images, or null")
    if micro_batch is not None and accumulate != 1:
        raise ValueError(
            f"trainer.micro_batch={micro_batch} and trainer.accumulate={accumulate} both split the batch: "
            "use trainer.accumulate=1, or trainer.micro_batch=null"
        )
    if timeout_s is not None and not timeout_s > 0:
        raise ValueError(f"trainer.timeout_s={timeout_s} must be above 0, or null for no limit")
    if max_time is not None and not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", str(max_time)):
        raise ValueError(
            f"trainer.max_time={max_time} must be days:hours:minutes:seconds, as in trainer.max_time=00:12:00:00"
        )
    if limit_val_batches is not None and limit_val_batches < 1:
        raise ValueError(
            f"trainer.limit_val_batches={limit_val_batches} must be at least 1, or null for all: validation chooses "
            "the epoch that is tested"
        )
    sharded = strategy == "fsdp"
    if sharded and micro_batch == "auto":
        raise ValueError(
            f"trainer.micro_batch=auto does not work with trainer.strategy={strategy}: if one device ran out of "
            "memory, the others would wait for its shard forever: use trainer.micro_batch=<images>"
        )
    if on_gpu:
        torch.set_float32_matmul_precision("high")
    else:  # Lightning sets it, and then each step of AdamW looks for the NVML library: 0.1 ms, where there is none
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    quiet()
    on_node = devices if isinstance(devices, int) else max(1, gpus * on_gpu)
    refuse_other_ranks(on_node, num_nodes)
    trainer = pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=devices,
        num_nodes=num_nodes,
        strategy=Sharded(num_nodes * on_node) if sharded else (Averaged() if strategy == "ddp" else strategy),
        precision=chosen(on_gpu) if precision == "auto" else precision,  # type: ignore[arg-type]
        accumulate_grad_batches=accumulate,
        max_epochs=max_epochs,
        max_time=max_time,  # type: ignore[arg-type]
        limit_val_batches=limit_val_batches,
        profiler=PROFILERS[profiler](dirpath=out_dir, filename="profile") if profiler else None,
        detect_anomaly=detect_anomaly,
        deterministic=deterministic,
        benchmark=benchmark,
        default_root_dir=out_dir,
        logger=False,  # loggers are set when training starts
        callbacks=callbacks,
        plugins=[AtomicCheckpoint(), *rank_environment()],
        num_sanity_val_steps=0,
        inference_mode=not sharded,  # FSDP2 needs the version counters of tensors, which inference mode does not have
        use_distributed_sampler=False,  # data/batches.py distributes the images, without padding
        log_every_n_steps=1,  # track/meter.py decides when to log; Lightning itself logs once per epoch
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
    )
    # train/signals.py handles them. Lightning's own handler waits for all other ranks, wherever they are
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    # Lightning asks the first rank before every step whether it was stopped, and waits for its device to answer
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer


def chosen(on_gpu: bool) -> Literal["bf16-mixed", "32-true"]:
    """The precision `auto`. A T4, a V100 and an RTX 20xx emulate bf16, more slowly than they compute in float32."""
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def quiet() -> None:
    """Silence Lightning's remarks on choices that are made here on purpose."""
    for package in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    for remark in (
        ".*does not have many workers",  # data in memory need none
        ".*dataloader is not resumable",  # the order follows from the number of batches taken
        "Checkpoint directory .* exists and is not empty",  # a run resumes in its own directory
        "GPU available but not used",
        "The `srun` command is available",  # on a login node; the environment shows whether this is a SLURM job
        ".*isinstance.treespec, LeafSpec.",  # Lightning 2.6 on a newer torch
        "Found .* module.s. in eval mode",  # batch norms of a part that is frozen
        ".broadcast_buffers. is deprecated",  # its successor sends buffers round at the start
    ):
        warnings.filterwarnings("ignore", remark)
