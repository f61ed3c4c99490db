"""Speed of matrix products, copies and attention on a device, as limits for the speed of networks."""

import statistics
import time
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchbench.commands.bench.profiles import kernels_of
from patchbench.commands.bench.rounds import Figures
from patchbench.commands.bench.training import synchronize


def ceilings(device: torch.device, scale: int = 1) -> Figures:
    """Measure the speed of matrix products in bfloat16, of copies on the device, and of copies to the device.

    `pageable_*_kib_host_ms`: milliseconds that the host takes to start a copy from memory that is not pinned, while the
    device is busy. scale: divides the side of the matrices; its square divides the bytes of the large copies.
    """
    side, size = 8192 // scale, 2**30 // scale**2
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = timed(device, lambda: a @ b)
    source = torch.randint(256, (size,), dtype=torch.uint8)
    original, target = source.to(device), torch.empty(size, dtype=torch.uint8, device=device)
    on_device = timed(device, lambda: target.copy_(original))
    pinned = source.pin_memory() if device.type == "cuda" else source
    to_device = timed(device, lambda: target.copy_(pinned, non_blocking=True), repeats=5)
    figures = {
        "matmul_bf16_tflops": 2 * side**3 / seconds / 1e12,
        "copy_on_device_tb_per_s": 2 * size / on_device / 1e12,
        "copy_pinned_gb_per_s": size / to_device / 1e9,
    }
    for kib in (8, 64, 512):  # does a copy from memory that is not pinned wait for a busy device?
        small = torch.zeros(kib * 1024, dtype=torch.uint8)
        for _ in range(4):
            a @ b
        began = time.perf_counter()
        small.to(device, non_blocking=True)
        figures[f"pageable_{kib}_kib_host_ms"] = 1000 * (time.perf_counter() - began)
        synchronize(device)
    return figures


def attention(device: torch.device, batch: int, heads: int, sizes: Iterable[int]) -> list[Figures]:
    """Time attention, forward and backward: without a bias, with a fixed bias and with a learned bias.

    sizes: numbers of tokens. The result has a row for each number of tokens and each kind of bias.
    """
    rows = []
    for n in sizes:
        for bias in ("none", "fixed", "learned"):
            q, k, v = (torch.randn(batch, heads, n, 64, device=device, dtype=torch.bfloat16) for _ in range(3))
            mask = torch.randn(1, heads, n, n, device=device, dtype=torch.bfloat16) if bias != "none" else None
            leaves = [x.requires_grad_() for x in (q, k, v)]
            if mask is not None and bias == "learned":
                leaves.append(mask.requires_grad_())
            grad = torch.randn_like(q)

            def both(q=q, k=k, v=v, mask=mask, leaves=leaves, grad=grad) -> Tensor:
                out = F.scaled_dot_product_attention(q, k, v, mask)
                torch.autograd.grad(out, leaves, grad)
                return out

            seconds = timed(device, both, repeats=10)
            rows.append(
                {
                    "tokens": n,
                    "bias": bias,
                    "ms": 1000 * seconds,
                    "tflops": 14 * batch * heads * n * n * 64 / seconds / 1e12,
                    "kernels": kernels_of(device, both),
                    "error": error_of_attention(q[:2], k[:2], v[:2], mask),
                }
            )
    return rows


def error_of_attention(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], mask: Tensor | None
) -> float:
    """Return the relative distance between attention and the same attention in float64; NaN if a value is NaN."""
    with torch.no_grad():
        out = F.scaled_dot_product_attention(q, k, v, mask).double()
        logits = q.double() @ k.double().transpose(-1, -2) / q.shape[-1] ** 0.5
        exact = (logits if mask is None else logits + mask.double()).softmax(-1) @ v.double()
        return float((out - exact).norm() / exact.norm())


def timed(device: torch.device, compute: Callable[[], object], repeats: int = 20) -> float:
    """Return the median seconds of a computation, by the clock of the device, after three repetitions as warm-up."""
    for _ in range(3):
        compute()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            compute()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1000)
        else:
            began = time.perf_counter()
            compute()
            times.append(time.perf_counter() - began)
    return statistics.median(times)
