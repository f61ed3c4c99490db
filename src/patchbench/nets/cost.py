"""Costs of a network, counted before anything is computed."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from patchbench.checks import Size
from patchbench.layout import Layout


@dataclass(frozen=True)
class Cost:
    """Tokens in the trunk (prefix included), parameters, and multiply-accumulates of the forward pass.

    grid_size, num_tokens: None for a network without tokens. macs: for each image. macs_per_step: for a batch,
    whatever the number of its images, such as a kernel that is resampled or a bias that is computed by a network.
    """

    grid_size: Size | None
    num_tokens: int | None
    params: int
    macs: int
    macs_per_step: int = 0

    def train_flops(self, images: int, steps: int = 1) -> int:
        """Count the FLOPs of training steps on so many images in all: forward and, at twice its cost, backward.

        A step is one of the optimizer: what is repeated for each micro-batch or device counts once.
        """
        return 6 * (images * self.macs + steps * self.macs_per_step)

    def facts(self) -> dict[str, int | float | str]:
        """List the costs for configs and records: parameters in millions, MACs and FLOPs in units of 1e9."""
        tokens: dict[str, int | float | str] = {}
        if self.grid_size and self.num_tokens:
            tokens = {"model/grid": "x".join(map(str, self.grid_size)), "model/tokens": self.num_tokens}
        per_step = {"model/gmacs_per_step": self.macs_per_step / 1e9} if self.macs_per_step else {}
        return (
            tokens
            | {
                "model/params": self.params,
                "model/params_m": self.params / 1e6,
                "model/gmacs": self.macs / 1e9,
                "model/gflops_fwd": 2 * self.macs / 1e9,
            }
            | per_step
        )


def cost(net: nn.Module, layout: Layout | None, in_chans: int, img_size: Size) -> Cost:
    """Count the forward passes of one image and of two: the difference is the cost of an image.

    On the meta device nothing is computed.
    """
    one, two = (sum(macs_by_module(net, images, in_chans, img_size).get("Global", {}).values()) for images in (1, 2))
    return Cost(
        grid_size=layout.grid_size if layout else None,
        num_tokens=num_tokens(layout) if layout else None,
        params=sum(p.numel() for p in net.parameters()),
        macs=two - one,
        macs_per_step=2 * one - two,
    )


def macs_by_module(net: nn.Module, images: int, in_chans: int, img_size: Size) -> dict[str, dict[Any, int]]:
    """Count the MACs of a forward pass, by module and operation. MACs are half of the FLOPs."""
    device, training = next(net.parameters()).device, net.training
    net.eval()  # batch norms cannot normalise one image, and nothing random shall happen
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(images, in_chans, *img_size, device=device))
    net.train(training)
    return {
        module: {operation: flops // 2 for operation, flops in counted.items()}
        for module, counted in counter.get_flop_counts().items()
    }


def num_tokens(layout: Layout) -> int:
    return math.prod(layout.grid_size) + layout.num_prefix_tokens


@dataclass(frozen=True)
class Memory:
    """Estimated bytes at the peak of a training step.

    weights: parameters and buffers, gradients, and the two averages of AdamW. per_image: tensors that forward saves for
    backward, for each image. per_step: tensors that forward saves whatever the number of images, such as the bf16
    copies of the weights. bias: attention bias of one layer and one image, or 0; the other fields include it.
    """

    weights: int
    per_image: int
    per_step: int
    bias: int

    def step(self, images: int) -> int:
        return self.weights + self.per_step + images * self.per_image


def memory(net: nn.Module, layout: Layout | None, in_chans: int, img_size: Size, *, bf16: bool) -> Memory:
    """Estimate the memory of a training step of `net`, which may be on the meta device: nothing is computed.

    Forward runs on fake CPU tensors, which have shapes and types but no values, under autocast if `bf16`. Every tensor
    that forward saves for backward is counted, each storage once. Not counted: workspaces of kernels, gradients of
    activations (they replace the activations), and the framework. Allocators need more than the tensors: on CPUs we
    measured 2 to 60 % more, the most with small tensors. A learned attention bias takes heads * n * n values per layer
    and image here, as on a CPU; the kernels of a GPU save fewer, but compute a gradient of this size.
    """
    one, two = (saved_for_backward(net, images, in_chans, img_size, bf16=bf16) for images in (1, 2))
    parameters = sum(p.numel() * p.element_size() for p in net.parameters())
    buffers = sum(b.numel() * b.element_size() for b in net.buffers())
    bias = 0
    if layout and len(getattr(net, "bias", ())):
        bias = layout.num_heads * num_tokens(layout) ** 2 * (2 if bf16 else 4)
    return Memory(
        weights=4 * parameters + buffers,
        per_image=two - one,
        per_step=2 * one - two,
        bias=bias,
    )


def saved_for_backward(net: nn.Module, images: int, in_chans: int, img_size: Size, *, bf16: bool) -> int:
    """Count the bytes of the tensors that forward saves, without parameters and buffers.

    The network is in eval mode: a batch norm cannot normalise one image, and fake tensors allow no random patch size.
    """
    storages, training = {}, net.training
    net.eval()
    with FakeTensorMode():
        own = {
            name: torch.empty(t.shape, dtype=t.dtype, requires_grad=t.requires_grad)
            for name, t in [*net.named_parameters(), *net.named_buffers()]
        }
        weights = {t.untyped_storage()._cdata for t in own.values()}

        def record(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                storages[storage._cdata] = storage  # the reference prevents another storage at the same address
            return tensor

        batch = torch.empty(images, in_chans, *img_size), torch.empty(images, dtype=torch.int64)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16), saved_tensors_hooks(record, lambda tensor: tensor):
            F.cross_entropy(functional_call(net, own, batch[:1]), batch[1])
    net.train(training)
    return sum(storage.nbytes() for storage in storages.values())
