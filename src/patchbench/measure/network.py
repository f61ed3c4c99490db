"""Measurements of one network on a few images: its embedding, its positional schemes, its attention, its tokens."""

import math
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from patchbench.measure import places, readout
from patchbench.measure.attention import measure_attention
from patchbench.measure.field import effective_field, resnet18_features
from patchbench.measure.kernels import measure_kernels
from patchbench.measure.position import bias_by_distance, positions, turns
from patchbench.measure.start import Starts
from patchbench.measure.summary import Measures

MAX_MACS = 3e11  # multiply-adds per measurement: expensive networks are measured on fewer images
ATTENTION_IMAGES, FIELD_IMAGES = 16, 8
PROBED_TOKENS = 8192
MOST_BYTES = 2**30  # of attention or of a bias; measurements that need more are left out


def measure(
    net: Any,
    raw: UInt8[Tensor, "b c H W"],
    images: Float[Tensor, "b c H W"],
    *,
    macs: int,
    device: torch.device,
    starts: Starts | None = None,
) -> Measures:
    """Take all measurements that apply to this network.

    raw, images: the same test images before and after normalisation. macs: multiply-adds of the network for one image.
    starts: the embedding at the start of training; None if it is not known. Measurements of all layers run on `device`,
    and the network stays there; measurements of the input stage run on the CPU.
    """

    def first(most: int) -> Tensor:
        """Return the first `most` images, or fewer if the network is expensive."""
        return images[: max(2, min(most, int(MAX_MACS / macs)))]

    net.eval().cpu()
    if net.layout is None:
        return without_tokens(net, raw, first(FIELD_IMAGES))
    img_size, grid_size, left_out = (images.shape[2], images.shape[3]), net.layout.grid_size, []
    n, blocks = math.prod(grid_size), len(net.blocks)
    vectors = positions(net)
    if not vectors:
        filled = [place for place in ("bias", "between") if places.modules(net, place)]
        why = (
            f"its scheme fills the place {' and '.join(filled)} and has no vectors"
            if filled
            else "this network has no scheme of position"
        )
        left_out.append(f"similarity of places, rank and Fourier spectrum: {why}")
    bias = None
    if places.modules(net, "bias"):
        if 4 * net.layout.num_heads * n**2 > MOST_BYTES:
            left_out.append(f"bias against distance: {n:,} places squared take more than {MOST_BYTES >> 30} GiB")
        else:
            bias = bias_by_distance(net, img_size)
    kernels = measure_kernels(net.embed, images, grid_size, starts)
    fields = {"embedding": effective_field(net.embed, first(FIELD_IMAGES))}
    net.to(device)
    attention = None
    if not all(hasattr(block, "attn") for block in net.blocks):
        left_out.append("attention: this network has no attention")
    elif (each := 4 * blocks * net.layout.num_heads * (n + net.layout.num_prefix_tokens) ** 2) > MOST_BYTES:
        left_out.append(f"attention: one image of {n:,} tokens needs {each / 2**30:.2g} GiB")
    else:
        attention = measure_attention(net, first(ATTENTION_IMAGES).to(device), img_size)
    fields["network"] = effective_field(lambda x: last_tokens(net, x), first(FIELD_IMAGES).to(device)).cpu()
    depths = readout.token_depths(net, first(max(16, PROBED_TOKENS // n)).to(device))
    fields["resnet18"] = effective_field(resnet18_features(grid_size, images), images[:FIELD_IMAGES])
    return Measures(
        raw,
        grid_size,
        kernels=kernels,
        positions=vectors,
        turns=turns(net) if places.modules(net, "rotation") else None,
        bias=bias,
        attention=attention,
        fields=fields,
        readout={name: readout.read_position(tokens, grid_size) for name, tokens in depths.items()},
        left_out=left_out,
    )


def without_tokens(net: Any, raw: UInt8[Tensor, "b c H W"], images: Float[Tensor, "k c H W"]) -> Measures:
    """Measure only the receptive field of the last feature map, for networks without tokens."""
    left_out = ["kernels, positions, attention and read-out: this network has no tokens"]
    with torch.no_grad():
        last = last_output(net, images[:1])
    if last.ndim != 4:
        return Measures(raw, left_out=[*left_out, "field: the last block of this network gives no feature map"])
    fields = {
        "network": effective_field(lambda x: last_output(net, x).permute(0, 2, 3, 1), images),
        "resnet18": effective_field(resnet18_features((last.shape[2], last.shape[3]), images), images),
    }
    return Measures(raw, fields=fields, left_out=left_out)


def last_tokens(net: Any, images: Tensor) -> Tensor:
    """Return the patch tokens after the last block, on their grid."""
    return last_output(net, images)[:, net.layout.num_prefix_tokens :].unflatten(1, net.layout.grid_size)


def last_output(net: Any, images: Tensor) -> Tensor:
    """Return the output of the last block."""
    outputs: list[Tensor] = []
    hook = net.blocks[-1].register_forward_hook(lambda _, __, out: outputs.append(out))
    try:
        net(images)
    finally:
        hook.remove()
    return outputs[0]
