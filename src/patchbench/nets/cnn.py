"""A plain convolutional network whose receptive field is a knob (dilation: Yu & Koltun, 2016)."""

from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size
from patchbench.layout import NORMS


class Cnn(nn.Module):
    """Map images to class logits by 3x3 convolutions of stride 1, each with norm and ReLU.

    The last map is averaged over its places and read by a linear head. A place sees field x field pixels. Parts of an
    image that are further apart add to the average, and so to the logits, separately: the network learns no relation
    between two such parts beyond the sum of their contributions.

    field: sets the dilation of the kernels and nothing else: parameters and multiply-accumulates are the same for every
    field. The border is padded with zeros, so a place within `field` of the border may detect its position.
    ValueError for a field that `depth` layers do not reach without gaps.
    """

    layout = None  # a network without tokens

    def __init__(
        self, *, img_size: Size, in_chans: int, num_classes: int, width: int, depth: int, field: int, norm: str
    ) -> None:
        super().__init__()
        if min(width, depth) < 1:
            raise ValueError(f"width={width} and depth={depth} must be at least 1")
        if norm not in NORMS:
            raise ValueError(f"norm={norm} is unknown: use {', '.join(NORMS)}")
        self.field = field
        layers: list[nn.Module] = []
        for step in dilations(field, depth):
            # No bias before batch norm, which subtracts it.
            conv = nn.Conv2d(in_chans, width, 3, padding=step, dilation=step, bias=norm != "batch")
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            layers += [conv, NORMS[norm](width), nn.ReLU()]
            in_chans = width
        self.trunk = nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))
        self.head = nn.Linear(width, num_classes)
        nn.init.normal_(self.head.weight, std=width**-0.5)
        nn.init.zeros_(self.head.bias)

    @property
    def blocks(self) -> list[nn.Module]:
        return [self.trunk]

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b classes"]:
        return self.head(self.trunk(images).mean((2, 3)))

    def no_weight_decay(self) -> set[str]:
        return set()


def dilations(field: int, depth: int) -> list[int]:
    """List the dilation of each 3x3 kernel such that a place sees all of field x field pixels.

    A layer of dilation d adds 2 d pixels to the side, and leaves no gap if d is at most the side before the layer. Each
    layer takes the largest d that this rule and the remaining layers allow. ValueError if there is no such list.
    """
    least, most = 1 + 2 * depth, 3**depth
    if field % 2 == 0 or not least <= field <= most:
        nearest = min(max(field // 2 * 2 + 1, least), most)
        deeper = next(n for n in range(1, 99) if 3**n >= field)
        other = f" or depth={deeper}" if field > most and field % 2 else ""
        raise ValueError(
            f"field={field} is not possible: depth={depth} convolutions of 3x3 without gaps see an odd number "
            f"of pixels, from {least} to {most}: use field={nearest}{other}"
        )
    steps, side, rest = [], 1, (field - 1) // 2
    for later_layers in reversed(range(depth)):
        steps.append(min(side, rest - later_layers))
        side, rest = side + 2 * steps[-1], rest - steps[-1]
    return steps
