"""A plain convolutional network that sees as far as it is told (dilation: Yu & Koltun, 2016)."""

from jaxtyping import Float
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from patchbench.checks import Size

NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm2d, "layer": LayerNorm2d, "none": nn.Identity}


class Cnn(nn.Module):
    """Images to class logits, by 3x3 convolutions of stride 1, each with norm and ReLU.

    The last map is averaged over its places and read by a linear head. A place sees field x field pixels. Of parts
    further apart than that, the average is a sum of what each says alone, and so are the logits: no relation between
    them can be told but by what the sum of two opinions tells.

    field: sets how far apart the taps of the kernels lie, and nothing else: parameters and multiply-accumulates are
    the same at every field. The border is padded with zeros, so a place within `field` of it may tell where it is.
    ValueError for a field that so many layers do not reach, or not without gaps.
    """

    layout = None  # it has no tokens

    def __init__(
        self, *, img_size: Size, in_chans: int, num_classes: int, width: int, depth: int, field: int, norm: str
    ) -> None:
        super().__init__()
        if min(width, depth) < 1:
            raise ValueError(f"model.width={width} and model.depth={depth} must be at least 1")
        if norm not in NORMS:
            raise ValueError(f"model.norm={norm} is unknown: use {', '.join(NORMS)}")
        self.field = field
        layers: list[nn.Module] = []
        for step in dilations(field, depth):
            # What a convolution adds to all places alike, batch norm takes away: no bias there.
            conv = nn.Conv2d(in_chans, width, 3, padding=step, dilation=step, bias=norm != "batch")
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            layers += [conv, NORMS[norm](width) if norm != "none" else nn.Identity(), nn.ReLU()]
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
    """How far apart the taps of each 3x3 kernel lie, so that a place sees `field` pixels a side, all of them.

    A layer of dilation d adds 2 d pixels, and leaves no gap where d is at most what was seen before it: early layers
    reach as far as that and the rest allow. ValueError where there is no such sequence.
    """
    least, most = 1 + 2 * depth, 3**depth
    if field % 2 == 0 or not least <= field <= most:
        odd = min(max(field // 2 * 2 + 1, least), most)
        deeper = next(n for n in range(1, 99) if 3**n >= field)
        other = f"{' or model.depth=' + str(deeper) if field > most and field % 2 else ''}"
        raise ValueError(
            f"model.field={field} is not what model.depth={depth} convolutions of 3x3 see without gaps, odd numbers "
            f"from {least} to {most}: use model.field={odd}{other}"
        )
    steps, seen, left = [], 1, (field - 1) // 2
    for after in reversed(range(depth)):
        steps.append(min(seen, left - after))
        seen, left = seen + 2 * steps[-1], left - steps[-1]
    return steps
