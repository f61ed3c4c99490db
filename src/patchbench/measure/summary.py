"""All that is measured of one network's input stage, on a few images, and the numbers that let networks be compared."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from patchbench.checks import Size
from patchbench.measure import attention, places, readout, response, spectrum
from patchbench.measure.field import Features, effective_field, extent

WORK = 3e11  # multiply-adds for the images of one measure: dear networks are looked at on fewer images
ATTENDED, PROBED, FIELDS, SLOPES, SHOWN = 16, 8192, 8, 8, 6  # images, but PROBED: tokens of the read-out
HELD = 2**30  # bytes of attention, or of a bias, up to which they are looked at
COMPONENTS = 28
FIELD_SHARE = 0.95


@dataclass(frozen=True)
class Kernels:
    """What the embedding answers to. affine: the same for every image; else on average over some."""

    weights: Float[Tensor, "d c P Q"]
    components: Float[Tensor, "k c P Q"]
    shares: Float[Tensor, " m"]  # of variance, of each principal component
    energy: Float[Tensor, "P Q"]
    affine: bool


@dataclass(frozen=True)
class Positions:
    """The vectors by which places are told apart: those that are added, or sines and cosines of angles."""

    table: places.Table
    singular: Float[Tensor, " m"]  # values of the vectors less their mean, as shares
    energy: Float[Tensor, "h w"]


@dataclass(frozen=True)
class Bias:
    """By block and head, the mean over all pairs of places at a distance, and the slope over all pairs."""

    pixels: Float[Tensor, " k"]
    means: Float[Tensor, "blocks heads k"]
    slopes: Float[Tensor, "blocks heads"]  # logits per patch


@dataclass(frozen=True)
class Attended:
    distance: Float[Tensor, "layers heads"]  # pixels
    uniform: float  # the same if attention were uniform
    rollout: Float[Tensor, "k h w"]  # of the first images


@dataclass(frozen=True)
class Measures:
    """What this network has; `left_out` says what not, and why."""

    images: UInt8[Tensor, "b c H W"]  # looked at, as they are
    grid_size: Size | None = None
    kernels: Kernels | None = None
    positions: dict[str, Positions] = field(default_factory=dict)  # by place
    turns: Float[Tensor, "blocks heads d 2"] | None = None  # radians per patch, down and across
    bias: Bias | None = None
    attended: Attended | None = None
    fields: dict[str, Float[Tensor, "H W"]] = field(default_factory=dict)  # shares of the squared gradient
    readout: dict[str, tuple[float, float]] = field(default_factory=dict)  # R2 of row and of column, by depth
    left_out: list[str] = field(default_factory=list)

    @property
    def img_size(self) -> Size:
        return self.images.shape[2], self.images.shape[3]

    def numbers(self) -> dict[str, float]:
        """By name, for records: ranks, frequencies, pixels and shares of variance."""
        found: dict[str, float] = {}
        if self.kernels:
            found["kernel_rank"] = effective_rank(self.kernels.weights.flatten(1))
            found["kernel_frequency"] = spectrum.dct_frequency(self.kernels.energy)
            if self.kernels.weights.shape[1] > 1:
                found["kernel_common_share"] = spectrum.common_share(self.kernels.weights)
        for place, told in self.positions.items():
            found[f"{place}_rank"] = effective_rank(told.table.vectors.flatten(0, 1))
            found[f"{place}_frequency"] = spectrum.grid_frequency(told.energy)
            found[f"{place}_similarity_near"] = told.table.near
            found[f"{place}_similarity_far"] = told.table.far
        if self.turns is not None:
            found["rotation_rad_per_patch"] = float(self.turns.norm(dim=-1).mean())
        if self.bias:
            found["bias_logits_per_patch"] = float(self.bias.slopes.mean())
        if self.attended:
            found["attention_px"] = float(self.attended.distance.mean())
            found["attention_px_uniform"] = self.attended.uniform
            found |= {f"attention_px_block{i}": float(heads.mean()) for i, heads in enumerate(self.attended.distance)}
        found |= {f"field_px_{name}": extent(values, FIELD_SHARE) for name, values in self.fields.items()}
        for depth, (row, col) in self.readout.items():
            found[f"row_r2_{depth.replace(' ', '')}"] = row
            found[f"col_r2_{depth.replace(' ', '')}"] = col
        return {f"analysis/{name}": value for name, value in found.items() if math.isfinite(value)}


def effective_rank(vectors: Float[Tensor, "n d"]) -> float:
    """Of what differs: the mean, which says nothing, is taken off."""
    return spectrum.effective_rank(vectors - vectors.mean(0))


def measure(
    net: Any, raw: UInt8[Tensor, "b c H W"], images: Float[Tensor, "b c H W"], *, macs: int, device: torch.device
) -> Measures:
    """raw, images: the same test images, as they are and as the network takes them; macs: of one image.

    What reads all layers runs on `device`, where the network is left; what follows from the input stage alone on a CPU.
    """

    def few(most: int) -> Tensor:
        return images[: max(2, min(most, int(WORK / macs)))]

    net.eval().cpu()
    if net.layout is None:
        return without_tokens(net, raw, few(FIELDS))
    img_size, grid_size, left_out = (images.shape[2], images.shape[3]), net.layout.grid_size, []
    n, blocks = math.prod(grid_size), len(net.blocks)
    told = positions(net)
    if not told:
        filled = [place for place in ("bias", "between") if places.modules(net, place)]
        why = f"its scheme says it in the place {' and '.join(filled)}, by no vectors" if filled else "none is told"
        left_out.append(f"similarity of places, rank and Fourier spectrum: {why}")
    bias = None
    if places.modules(net, "bias"):
        if 4 * net.layout.num_heads * n**2 > HELD:
            left_out.append(f"bias against distance: {n:,} places squared take more than {HELD >> 30} GiB")
        else:
            bias = bias_by_distance(net, img_size)
    shown = kernels(net.embed, images, grid_size)
    fields = {"embedding": effective_field(net.embed, few(FIELDS))}
    net.to(device)
    attended = None
    if not all(hasattr(block, "attn") for block in net.blocks):
        left_out.append("attention: this network has none")
    elif (each := 4 * blocks * net.layout.num_heads * (n + net.layout.num_prefix_tokens) ** 2) > HELD:
        left_out.append(f"attention: that of one image over {n:,} tokens takes {each / 2**30:.2g} GiB")
    else:
        attended = attend(net, few(ATTENDED).to(device), img_size)
    fields["network"] = effective_field(lambda x: last_tokens(net, x), few(FIELDS).to(device)).cpu()
    depths = readout.token_depths(net, few(max(16, PROBED // n)).to(device))
    fields["resnet18"] = effective_field(cnn(grid_size, images), images[:FIELDS])
    return Measures(
        raw,
        grid_size,
        kernels=shown,
        positions=told,
        turns=turns(net) if places.modules(net, "rotation") else None,
        bias=bias,
        attended=attended,
        fields=fields,
        readout={name: readout.read_position(tokens, grid_size) for name, tokens in depths.items()},
        left_out=left_out,
    )


def without_tokens(net: Any, raw: UInt8[Tensor, "b c H W"], images: Float[Tensor, "k c H W"]) -> Measures:
    """Of a network that has none only how far it sees, where it shows its last map."""
    left_out = ["kernels, positions, attention and read-out: this network has no tokens"]
    with torch.no_grad():
        last = last_output(net, images[:1])
    if last.ndim != 4:
        return Measures(raw, left_out=[*left_out, "field: what comes before its classes is not known"])
    fields = {
        "network": effective_field(lambda x: last_output(net, x).permute(0, 2, 3, 1), images),
        "resnet18": effective_field(cnn((last.shape[2], last.shape[3]), images), images),
    }
    return Measures(raw, fields=fields, left_out=left_out)


def kernels(embed: nn.Module, images: Float[Tensor, "b c H W"], grid_size: Size) -> Kernels:
    """Of the place in the middle."""
    shape = (images.shape[1], images.shape[2], images.shape[3])
    window, _ = response.window_and_stride(embed, shape, grid_size)
    place = (grid_size[0] // 2, grid_size[1] // 2)
    affine = response.is_affine(embed, images[:1])
    with torch.no_grad():
        width = embed(images[:1]).shape[-1]
    weights = response.kernels(embed, images[: 1 if affine else SLOPES], place, window, width)
    axes, shares = spectrum.components(weights.flatten(1), COMPONENTS)
    return Kernels(weights, axes.unflatten(1, weights.shape[1:]), shares, spectrum.dct_energy(weights), affine)


def positions(net: Any) -> dict[str, Positions]:
    """By place, where a scheme tells places apart by a vector each, whatever the image. Of several blocks the first."""
    grid_size, found = net.layout.grid_size, {}
    for place in ("tokens", "rotation"):
        if not (held := places.modules(net, place)):
            continue
        table = (
            places.table(held[0], grid_size, net.layout.embed_dim)
            if place == "tokens"
            else places.turned(held[0], grid_size)
        )
        if table is not None:
            flat = table.vectors.flatten(0, 1)
            singular = torch.linalg.svdvals((flat - flat.mean(0)).double())
            shares = (singular / singular.sum()).float()
            found[place] = Positions(table, shares, spectrum.grid_energy(table.vectors))
    return found


def turns(net: Any) -> Float[Tensor, "blocks heads d 2"]:
    """By how many radians each pair of channels turns from one patch to the next, down and across; modulo a turn."""
    grid_size, found = net.layout.grid_size, []
    for rotation in places.modules(net, "rotation"):
        with torch.no_grad():
            sincos = rotation(grid_size).cpu()
        sin, cos = sincos.reshape(-1, *sincos.shape[-2:]).unflatten(1, grid_size).chunk(2, -1)
        angle = torch.atan2(sin, cos)[..., ::2]  # neighbours form the pairs
        here, *nexts = angle[:, 0, 0], angle[:, min(1, grid_size[0] - 1), 0], angle[:, 0, min(1, grid_size[1] - 1)]
        found.append(torch.stack([torch.remainder(x - here + math.pi, 2 * math.pi) - math.pi for x in nexts], -1))
    return torch.stack(found)


def bias_by_distance(net: Any, img_size: Size) -> Bias:
    grid_size = net.layout.grid_size
    step = max(size / n for size, n in zip(img_size, grid_size, strict=True))
    patches = attention.distances(grid_size, (1.0, 1.0)).flatten()
    bins = patches.round().long()
    counts = bins.bincount()
    off = (patches - patches.mean()).double()
    means, slopes = [], []
    for module in places.modules(net, "bias"):
        with torch.no_grad():
            logits = module(grid_size).flatten(1).double()
        sums = torch.zeros(len(logits), len(counts)).double().index_add_(1, bins, logits)
        means.append(sums / counts)
        slopes.append(logits @ off / off.square().sum())
    return Bias(torch.arange(len(counts)) * step, torch.stack(means).float(), torch.stack(slopes).float())


def attend(net: Any, images: Float[Tensor, "b c H W"], img_size: Size) -> Attended:
    """Image by image, as all attention of one may fill the memory."""
    grid_size = net.layout.grid_size
    far = attention.distances(grid_size, (img_size[0] / grid_size[0], img_size[1] / grid_size[1])).to(images.device)
    distance: list[Tensor] = []
    rolled: list[Tensor] = []
    for image in images:
        found = attention.attention(net, image[None])
        distance.append(attention.mean_distance(found, far).cpu())
        if len(rolled) < SHOWN:
            rolled.append(attention.rollout(found, net.pool, net.layout.num_prefix_tokens).cpu())
    rolled_out = torch.cat(rolled).unflatten(1, grid_size)
    return Attended(torch.stack(distance).mean(0), float(far.mean()), rolled_out)


def last_tokens(net: Any, images: Tensor) -> Tensor:
    """The patch tokens after the last block, on their grid."""
    return last_output(net, images)[:, net.layout.num_prefix_tokens :].unflatten(1, net.layout.grid_size)


def last_output(net: Any, images: Tensor) -> Tensor:
    """Of the last block."""
    kept: list[Tensor] = []
    hook = net.blocks[-1].register_forward_hook(lambda _, __, out: kept.append(out))
    try:
        net(images)
    finally:
        hook.remove()
    return kept[0]


def cnn(grid_size: Size, images: Tensor) -> Features:
    """A ResNet-18 of random weights (He et al., 2016), up to the stage whose grid is nearest to `grid_size`."""
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        # By timm's default the residual branches start at zero, and such a network sees as far as its shortcuts.
        options: Any = {"in_chans": images.shape[1], "features_only": True, "zero_init_last": False}
        resnet = timm.create_model("resnet18", **options).eval()
    with torch.no_grad():
        sizes = [stage.shape[2] for stage in resnet(images[:1])]
    nearest = min(range(1, len(sizes)), key=lambda i: abs(math.log(sizes[i] / grid_size[0])))
    return lambda x: resnet(x)[nearest].permute(0, 2, 3, 1)
