"""CUDA graphs of the forward and backward pass of a small network."""

from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy, Strategy

from patchbench.checks import Size

HOST_BOUND = 3e12  # FLOPs of a step: an H100 needs 10 to 30 ms for them, as long as a CPU needs to launch the kernels


class Graphed(pl.Callback):
    """Replay the passes of the network as CUDA graphs, instead of launching their kernels one by one.

    A GPU computes a step of a small network faster than a CPU can launch its kernels, so the GPU would wait. Graphs are
    used for training only, on one device: the shapes in evaluation differ, and DDP and FSDP add hooks to the passes.
    """

    def __init__(self, batch_size: int, in_chans: int, img_size: Size) -> None:
        self.batch_size, self.shape = batch_size, (in_chans, *img_size)

    def on_train_start(self, trainer: pl.Trainer, task: Any) -> None:
        buffers = [buffer.clone() for buffer in task.net.buffers()]  # restored after the passes of the capture
        images = torch.zeros(self.batch_size // trainer.accumulate_grad_batches, *self.shape, device=task.device)
        with trainer.precision_plugin.forward_context():
            torch.cuda.make_graphed_callables(task.net, (images,), allow_unused_input=True)
        for buffer, value in zip(task.net.buffers(), buffers, strict=True):
            buffer.copy_(value)

    def on_train_end(self, trainer: pl.Trainer, task: Any) -> None:
        vars(task.net).pop("forward", None)  # frees the memory of the graphs


def uses_graphs(option: bool | Literal["auto"], net: Any, strategy: Strategy, flops_per_step: int) -> bool:
    """True if training uses graphs. option: cuda_graphs. ValueError if it is true and graphs are not possible."""
    possible = can_be_graphs(net, strategy)
    if option is True and not possible:
        raise ValueError(
            "cuda_graphs=true needs one GPU, without DDP and FSDP, and steps that are all alike, without "
            "embed.train_patches: use cuda_graphs=auto"
        )
    return option is True or (option == "auto" and possible and flops_per_step < HOST_BOUND)


def can_be_graphs(net: Any, strategy: Strategy) -> bool:
    """True on one GPU if all steps are equal: a graph repeats the decisions of the host during the capture."""
    alone = isinstance(strategy, SingleDeviceStrategy) and strategy.root_device.type == "cuda"
    return alone and not getattr(getattr(net, "embed", None), "varies", False)
