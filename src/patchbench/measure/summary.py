"""All measurements of one network, and their summary as numbers."""

import math
from dataclasses import dataclass, field

from jaxtyping import Float, UInt8
from torch import Tensor

from patchbench.checks import Size
from patchbench.measure import spectrum
from patchbench.measure.attention import Attention
from patchbench.measure.field import extent
from patchbench.measure.kernels import Kernels
from patchbench.measure.position import Bias, Positions

FIELD_SHARE = 0.95  # share of the squared gradient that defines the size of a receptive field


@dataclass(frozen=True)
class Measures:
    """Measurements of one network; if one does not apply to this network, it is None or empty."""

    images: UInt8[Tensor, "b c H W"]  # images of the measurements, before normalisation
    grid_size: Size | None = None
    kernels: Kernels | None = None
    positions: dict[str, Positions] = field(default_factory=dict)  # by place
    turns: Float[Tensor, "blocks heads d 2"] | None = None  # radians per patch, down and across
    bias: Bias | None = None
    attention: Attention | None = None
    fields: dict[str, Float[Tensor, "H W"]] = field(default_factory=dict)  # shares of the squared gradient
    readout: dict[str, tuple[float, float]] = field(default_factory=dict)  # R2 of row and of column, by depth
    left_out: list[str] = field(default_factory=list)  # sentences: missing measurements, each with the reason

    @property
    def img_size(self) -> Size:
        return self.images.shape[2], self.images.shape[3]

    @property
    def grey(self) -> bool:
        """True if all channels of these images are equal."""
        return bool((self.images == self.images[:, :1]).all())

    def numbers(self) -> dict[str, float]:
        """Return the measurements as named numbers for a record: ranks, frequencies, pixels, shares of variance."""
        numbers: dict[str, float] = {}
        if self.kernels:
            numbers["kernel_rank"] = centred_rank(self.kernels.weights.flatten(1))
            numbers["kernel_frequency"] = spectrum.dct_frequency(self.kernels.energy)
            if self.kernels.change:
                numbers["kernel_start_cosine"] = self.kernels.change.cosine
                numbers["kernel_start_difference"] = self.kernels.change.difference
            if self.kernels.weights.shape[1] > 1:
                numbers["kernel_common_share"] = spectrum.common_share(self.kernels.weights)
        for place, vectors in self.positions.items():
            numbers[f"{place}_rank"] = centred_rank(vectors.table.vectors.flatten(0, 1))
            numbers[f"{place}_frequency"] = spectrum.grid_frequency(vectors.energy)
            numbers[f"{place}_similarity_near"] = vectors.table.near
            numbers[f"{place}_similarity_far"] = vectors.table.far
        if self.turns is not None:
            numbers["rotation_rad_per_patch"] = float(self.turns.norm(dim=-1).mean())
        if self.bias:
            numbers["bias_logits_per_patch"] = float(self.bias.slopes.mean())
        if self.attention:
            distance = self.attention.distance
            numbers["attention_px"] = float(distance.mean())
            numbers["attention_px_uniform"] = self.attention.uniform
            numbers |= {f"attention_px_block{i}": float(heads.mean()) for i, heads in enumerate(distance)}
        numbers |= {f"field_px_{name}": extent(values, FIELD_SHARE) for name, values in self.fields.items()}
        for depth, (row, col) in self.readout.items():
            numbers[f"row_r2_{depth.replace(' ', '')}"] = row
            numbers[f"col_r2_{depth.replace(' ', '')}"] = col
        return {f"analysis/{name}": value for name, value in numbers.items() if math.isfinite(value)}


def centred_rank(vectors: Float[Tensor, "n d"]) -> float:
    """Return the effective rank after subtracting the mean."""
    return spectrum.effective_rank(vectors - vectors.mean(0))
