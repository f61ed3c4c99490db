"""Each Vision Transformer of timm that has weights, loaded or refused: `python tests/timm_family.py [NAME ...]`.

Networks are built without their weights, two blocks deep and else at their own widths, with nothing in them zero.
The options are those that the refusals name: a cure that does not lead on fails.
"""

import re
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import timm
import torch
from support import configure
from torch import nn

from patchbench.commands.build import build_net, build_source
from patchbench.nets.vit import ViT
from patchbench.weights.load import fit
from patchbench.weights.timm import from_timm, metadata_of

MODULES = (
    "vision_transformer",
    "deit",
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "vision_transformer_sam",
    "eva",
    "beit",
    "naflexvit",
)
GRID = (4, 5)
CURE = re.compile(r"\b(?:model|pos)[\w.]*=[^\s;:]+")


@dataclass(frozen=True)
class Loaded:
    """The result for one architecture. verdict: exact, remark, refused, or wrong if logits differ without a remark."""

    name: str
    tags: int
    verdict: str
    reason: str
    error: float = 0.0
    overrides: tuple[str, ...] = ()


def names() -> dict[str, int]:
    """Return the architectures with weights, and the number of their tags."""
    tags = Counter(name.split(".")[0] for name in timm.list_pretrained())
    return {name: tags[name] for module in MODULES for name in timm.list_models(module=module) if tags[name]}


def built(name: str) -> Any:
    """Build a shallow network of ten classes, with a small grid if it has one, and without zero weights."""
    torch.manual_seed(0)
    with torch.device("meta"):
        stride = getattr(getattr(timm.create_model(name), "patch_embed", None), "patch_size", (16, 16))[0]
    size = {"img_size": tuple(stride * n for n in GRID)}
    for arguments in ({"depth": 2, "num_classes": 10} | size, {"depth": 2, "num_classes": 10}):
        try:
            return disturbed(timm.create_model(name, **arguments))
        except (AssertionError, TypeError, ValueError, RuntimeError):
            continue
    with torch.device("meta"):
        return timm.create_model(name)


def disturbed(vit: Any) -> Any:
    with torch.no_grad():
        for path, p in vit.named_parameters():
            if "gamma" in path:
                p.uniform_(0.5, 1.5)
            else:
                p.add_((0.1 if p.ndim == 1 else 0.02) * torch.randn_like(p))
    return vit.eval()


def tried(name: str, tags: int) -> Loaded:
    """Load one architecture, and compare its logits."""
    try:
        vit = built(name)
        net, remarks, given = loaded(vit)
    except ValueError as error:
        return Loaded(name, tags, "refused", str(error))
    error = difference(net, vit)
    verdict = "remark" if remarks else "exact" if error < 1e-4 else "wrong"
    return Loaded(name, tags, verdict, "; ".join(remarks), error, given)


def loaded(vit: Any, *given: str) -> tuple[ViT, list[str], tuple[str, ...]]:
    """Load a network of timm with the options that the errors name; return the network, remarks, and all options."""
    told = metadata_of(vit)
    patch, img_size = vit.patch_embed.patch_size, vit.patch_embed.img_size
    weights = from_timm(vit.state_dict(), told, vit.patch_embed.grid_size)
    options = {"model": "tiny", "model.depth": str(len(vit.blocks)), "data": "random", "data.num_classes": "10"}
    options |= {"patch": f"[{patch[0]},{patch[1]}]", "data.img_size": f"[{img_size[0]},{img_size[1]}]"}
    options |= {"model.pool": weights.pool or "mean", "model.final_norm": weights.final_norm}
    options |= {"model.num_prefix_tokens": str(weights.knobs.get("model.num_prefix_tokens", 0))}
    options |= dict(option.split("=", 1) for option in given)
    while True:
        overrides = tuple(f"{knob}={value}" for knob, value in options.items())
        cfg = configure(*overrides)
        try:
            net = build_net(cfg, build_source(cfg)).eval()
            return net, fit(net, weights), overrides
        except ValueError as error:
            cures = CURE.findall(str(error).rpartition("use ")[2].split(" or ")[0])
            new = dict(cure.split("=", 1) for cure in cures)
            if not new.items() - options.items():
                raise
            options |= new


def difference(net: nn.Module, vit: Any) -> float:
    images = torch.randn(2, 3, *vit.patch_embed.img_size)
    with torch.no_grad():
        theirs, ours = vit(images), net(images)
    return float((theirs - ours).norm() / theirs.norm())


def table(names: dict[str, int]) -> list[Loaded]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [tried(name, tags) for name, tags in names.items()]


if __name__ == "__main__":
    rows = []
    for name, tags in names().items():
        if len(sys.argv) < 2 or name in sys.argv[1:]:
            rows += (row := table({name: tags}))
            print(f"{name:44} {tags:2} {row[0].verdict:8} {row[0].error:8.1e} {row[0].reason}", flush=True)
    for verdict in ("exact", "remark", "refused", "wrong"):
        of = [row for row in rows if row.verdict == verdict]
        print(f"{verdict:8} {len(of):3} architectures {sum(row.tags for row in of):3} tags")
