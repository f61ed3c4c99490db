"""Memory of a training step, estimated before anything is computed."""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, UntypedStorage, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from patchbench.checks import Size
from patchbench.layout import Layout
from patchbench.nets.cost import num_tokens

BATCHES = 32, 64  # images: enough that their tensors, and not the weights, decide when the peak is


@dataclass(frozen=True)
class Memory:
    """Estimated bytes at the peak of a training step.

    weights: parameters and buffers, and for trained parameters also gradients and the two averages of AdamW. per_image:
    tensors of each image at the peak. per_step: other tensors at the peak, independent of the number of images, such as
    the bf16 copies of the weights. bias: attention bias of one layer and one image, or 0; the other fields include it.
    """

    weights: int
    per_image: int
    per_step: int
    bias: int

    def step(self, images: int) -> int:
        return self.weights + self.per_step + images * self.per_image


def memory(net: nn.Module, layout: Layout | None, in_chans: int, img_size: Size, *, bf16: bool) -> Memory:
    """Estimate the memory of a training step of `net`, which may be on the meta device: nothing is computed.

    Workspaces of kernels and the framework are not counted. Allocators need more memory than the tensors, especially if
    the tensors are small. A learned attention bias counts as heads * n * n values per layer and image, as on a CPU; the
    kernels of a GPU save fewer values, but compute a gradient of this size.
    """
    small, large = (peak(net, images, in_chans, img_size, bf16=bf16) for images in BATCHES)
    per_image = (large - small) // (BATCHES[1] - BATCHES[0])
    parameters = sum(p.numel() * p.element_size() for p in net.parameters())
    trained = sum(p.numel() * p.element_size() for p in net.parameters() if p.requires_grad)
    buffers = sum(b.numel() * b.element_size() for b in net.buffers())
    bias = 0
    if layout and len(getattr(net, "bias", ())):
        bias = layout.num_heads * num_tokens(layout) ** 2 * (2 if bf16 else 4)
    return Memory(
        weights=parameters + 3 * trained + buffers,
        per_image=per_image,
        per_step=large - BATCHES[1] * per_image,
        bias=bias,
    )


def peak(net: nn.Module, images: int, in_chans: int, img_size: Size, *, bf16: bool) -> int:
    """Return the bytes of all tensors except parameters, buffers and gradients at the peak of forward and backward.

    Both run on fake CPU tensors, which have shapes and types but no values, under autocast if `bf16`. All gradients
    exist before, as after an earlier micro-batch. The network is in eval mode, because fake tensors allow no random
    patch size.
    """
    training = net.training
    net.eval()
    with FakeOnCPU():
        own = {
            name: torch.empty(t.shape, dtype=t.dtype, requires_grad=t.requires_grad)
            for name, t in [*net.named_parameters(), *net.named_buffers()]
        }
        for tensor in own.values():
            tensor.grad = torch.empty_like(tensor) if tensor.requires_grad else None
        with LiveBytes() as counter:
            batch = torch.empty(images, in_chans, *img_size), torch.empty(images, dtype=torch.int64)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(functional_call(net, own, batch[:1]), batch[1])
            loss.backward()
    net.train(training)
    return counter.peak


class FakeOnCPU(FakeTensorMode):
    """Fake tensors on the CPU. Without this class, torch looks for a GPU at each operation: a third of the time."""

    avoid_device_init = True


class LiveBytes(TorchDispatchMode):
    """Count the bytes of the tensors that operations create, until the tensors are freed; each storage counts once.

    live: bytes at this moment. peak: largest value of `live` so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        before = storages((args, kwargs))
        for storage in (made for address, made in storages(out).items() if address not in before):
            self.live += storage.nbytes()
            weakref.finalize(storage, self.forget, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return out

    def forget(self, size: int) -> None:
        self.live -= size


def storages(tree: Any) -> dict[int, UntypedStorage]:
    """Return the storages of the tensors in a tree, by address; views of a tensor share its storage."""
    storages = (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
    return {storage._cdata: storage for storage in storages}
