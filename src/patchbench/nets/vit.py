"""A plain Vision Transformer with four places where position may enter (Dosovitskiy et al., 2021).

    embed -> [tokens] -> block 0 -> [between] -> block 1 -> ... -> pool -> norm -> head
                          |
                          q, k turned by [rotation]; attention logits shifted by [bias]

The network knows these places and no scheme that fills them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import AttentionPoolLatent, LayerNorm, get_act_layer
from timm.models.eva import EvaBlock
from torch import Tensor, nn

from patchbench.checks import Size, at_least, one_of, positive, qualified, share
from patchbench.layout import PLACES, Layout
from patchbench.nets.init import init_projection, init_trunk

Build = Callable[[Layout], nn.Module]
POOLS = ("mean", "cls", "map")
FINAL_NORMS = ("pooled", "tokens", "none")
ACTS = ("gelu", "gelu_tanh", "quick_gelu", "swiglu")


@dataclass(frozen=True)
class Position:
    """Builders of the modules in each place. A scheme fills one place or several; an empty place costs nothing."""

    tokens: Build | None = None  # b h w d -> b h w d    once, before the first block
    rotation: Build | None = None  # grid_size -> [heads] n 2*head_dim    turns q and k of every block
    bias: Build | None = None  # grid_size -> heads n n    is added to the attention logits of every block
    between: Build | None = None  # b h w d -> b h w d    after the blocks numbered in `after`
    after: Sequence[int] | int | None = None  # None: after every block but the last
    per_layer: bool = False  # rotation, bias, between: a module for each block, or one for all of them


def schemes_by_place(schemes: Mapping[str, Position]) -> dict[str, str]:
    """Name the scheme of each place, as in `pos=[learned,rope]`. ValueError if two schemes fill one place."""
    names: dict[str, str] = {}
    for name, scheme in schemes.items():
        for place in PLACES:
            if getattr(scheme, place) is not None and (other := names.setdefault(place, name)) != name:
                raise ValueError(
                    f"pos=[{','.join(schemes)}]: {other} and {name} both fill the place {place!r}: choose one"
                )
    return names


class DropPath(nn.Module):
    """Skip a branch for some of the images, and scale it up for the others (Huang et al., 2016).

    The rate is a buffer. In timm's DropPath it is a number, and torch.compile makes a graph for every number, up to 8.
    """

    rate: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.register_buffer("rate", torch.tensor(rate), persistent=False)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        if not self.training:
            return x
        passes = torch.rand(len(x), 1, 1, device=x.device) >= self.rate
        return x * (passes / (1 - self.rate)).to(x.dtype)


class ViT(nn.Module):
    """Map images to class logits.

    embed: builds the embedding from (img_size, in_chans, embed_dim). pos: the schemes by name, see `Position`.
    The first prefix token is the class token, the others are registers (Darcet et al., 2024); no prefix token has a
    place on the grid. `pool="cls"` reads the class token, `pool="mean"` the average of the patch tokens, `pool="map"`
    lets a learned query attend to them (Zhai et al., 2022). final_norm: the last norm acts on the `pooled` vector, on
    the `tokens` before pooling, or is left out (`none`). pre_norm: norm the tokens before the first block (Radford et
    al., 2021).
    act: of the MLPs, `gelu`, `gelu_tanh`, `quick_gelu`, or `swiglu`, which gates the hidden layer (Shazeer, 2020).
    scale_attn_norm, scale_mlp_norm: norm the output of attention, and the hidden layer of the MLP, before it is
    projected.
    layer_scale: each branch is multiplied, channel by channel, by weights that start at this number, `blocks.*.gamma_1`
    and `gamma_2` (Touvron et al., 2021, "Going deeper with Image Transformers"); None: branches are not multiplied.
    residual: dtype of the residual stream under autocast, `float32` or `bfloat16`.
    With a class token and without position, the network is timm's `VisionTransformer`, parameter by parameter; only
    prefix tokens start with a standard deviation of 0.02, and in timm with 1e-6.
    """

    def __init__(
        self,
        embed: Callable[[Size, int, int], nn.Module],
        pos: Mapping[str, Position],
        *,
        img_size: Size,
        in_chans: int,
        num_classes: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        num_prefix_tokens: int,
        pool: str,
        final_norm: str,
        pre_norm: bool,
        act: str,
        scale_attn_norm: bool,
        scale_mlp_norm: bool,
        norm_eps: float,
        layer_scale: float | None,
        drop_path: float,
        residual: str,
    ) -> None:
        super().__init__()
        at_least(1, embed_dim=embed_dim, num_heads=num_heads)
        at_least(0, depth=depth, num_prefix_tokens=num_prefix_tokens)
        positive("mlp_ratio", mlp_ratio)
        share("drop_path", drop_path)
        if embed_dim % num_heads:
            raise ValueError(
                f"embed_dim={embed_dim} does not split into num_heads={num_heads} equal heads: "
                f"use embed_dim={embed_dim // num_heads * num_heads or num_heads}"
            )
        one_of("pool", pool, POOLS)
        one_of("final_norm", final_norm, FINAL_NORMS)
        one_of("act", act, ACTS)
        positive("norm_eps", norm_eps)
        if layer_scale is not None:
            positive("layer_scale", layer_scale, otherwise="null")
        switches = {"pre_norm": pre_norm, "scale_attn_norm": scale_attn_norm, "scale_mlp_norm": scale_mlp_norm}
        for name, value in switches.items():
            if not isinstance(value, bool):
                raise ValueError(f"{name}={value} is unknown: use true or false")
        one_of("residual", residual, ("float32", "bfloat16"))
        if pool == "cls" and num_prefix_tokens < 1:
            raise ValueError(
                f"pool=cls reads the class token, but num_prefix_tokens={num_prefix_tokens}: "
                "use pool=mean, or num_prefix_tokens=1"
            )
        self.pool, self.final_norm, self.act, self.norm_eps = pool, final_norm, act, norm_eps
        self.layer_scale = layer_scale
        self.residual = getattr(torch, residual)

        # Parts that no option varies are built first, so that equal seeds start every arm from equal weights.
        # EvaBlock with attn_type="rope" is timm's pre-norm Block, to the bit, plus the argument `rope`.
        norm_layer: Any = partial(LayerNorm, eps=norm_eps)
        act_layer: Any = get_act_layer("gelu" if act == "swiglu" else act)
        self.blocks = nn.ModuleList(
            EvaBlock(
                embed_dim,
                num_heads,
                attn_type="rope",
                mlp_ratio=mlp_ratio,
                swiglu_mlp=act == "swiglu",
                act_layer=act_layer,
                scale_attn_inner=scale_attn_norm,
                scale_mlp=scale_mlp_norm,
                init_values=layer_scale,
                norm_layer=norm_layer,
                num_prefix_tokens=num_prefix_tokens,
            )
            for _ in range(depth)
        )
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        for block, rate in zip(self.blocks, rates, strict=True):
            if drop_path:  # in the first block too, whose rate is 0: all blocks share one graph
                block.drop_path1, block.drop_path2 = DropPath(rate), DropPath(rate)
        self.norm = nn.Identity() if final_norm == "none" else norm_layer(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)
        self.norm_pre = norm_layer(embed_dim) if pre_norm else nn.Identity()
        self.attn_pool = None
        if pool == "map":
            self.attn_pool = AttentionPoolLatent(
                embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio, norm_layer=norm_layer, act_layer=act_layer
            )
        self.apply(init_trunk)
        self.prefix = nn.Parameter(torch.empty(num_prefix_tokens, embed_dim))
        nn.init.trunc_normal_(self.prefix, std=0.02)

        with qualified("embed", getattr(embed, "keywords", ())):
            self.embed = embed(img_size, in_chans, embed_dim).apply(init_projection)
        grid_size: Any = self.embed.grid_size
        self.layout = Layout(grid_size, embed_dim, num_heads, num_prefix_tokens)
        names = schemes_by_place(pos)

        def fill(place: str, blocks: int) -> nn.ModuleList:
            """Build a module for each of `blocks` blocks, or one module that they share."""
            if place not in names:
                return nn.ModuleList()
            name = names[place]
            scheme, build = pos[name], getattr(pos[name], place)
            path, knobs = f"pos.{name}", getattr(build, "keywords", ())
            with qualified(path, ("after", "per_layer")), qualified(f"{path}.{place}", knobs):
                if not isinstance(scheme.per_layer, bool):
                    raise ValueError(f"per_layer={scheme.per_layer} is unknown: use true or false")
                number = blocks if scheme.per_layer else min(blocks, 1)
                return nn.ModuleList(build(self.layout) for _ in range(number))

        after: list[int] = []
        if "between" in names:
            with qualified(f"pos.{names['between']}", ("after",)):
                after = after_blocks(pos[names["between"]], depth)
        self.tokens = next(iter(fill("tokens", 1)), nn.Identity())
        self.rotation = fill("rotation", depth)
        self.bias = fill("bias", depth)
        self.between = fill("between", len(after))
        self.after = {block: i % len(self.between) for i, block in enumerate(after)}

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b classes"]:
        x = self.tokens(self.embed(images))
        grid_size = (x.shape[1], x.shape[2])
        x = self.norm_pre(torch.cat([self.prefix.expand(len(x), -1, -1), x.flatten(1, 2)], dim=1))
        if not x.is_meta and torch.is_autocast_enabled(x.device.type):
            x = x.to(self.residual)  # without this line the dtype would depend on the scheme in `tokens`
        rope: Tensor | None = None
        bias: Tensor | None = None
        for i, block in enumerate(self.blocks):
            if i < len(self.rotation):  # the output of a shared module serves all blocks
                rope = self.rotation[i](grid_size)
            if i < len(self.bias):
                bias = self.pad_for_prefix(self.bias[i](grid_size))
            x = block(x, rope=rope, attn_mask=bias).to(x.dtype)  # layer_scale may return float32
            if i in self.after:
                x = self.on_grid(self.between[self.after[i]], x, grid_size)
        if self.final_norm == "tokens":
            return self.head(self.pooled(self.norm(x)))
        return self.head(self.norm(self.pooled(x)))

    def pooled(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b d"]:
        """Read the class token, or average or query the patch tokens."""
        if self.pool == "cls":
            return x[:, 0]
        patches = x[:, len(self.prefix) :]
        return patches.mean(1) if self.attn_pool is None else self.attn_pool(patches)

    def on_grid(self, fn: nn.Module, x: Float[Tensor, "b l d"], grid_size: Size) -> Float[Tensor, "b l d"]:
        """Apply `fn` to the patch tokens on their grid; prefix tokens have no place on it and stay as they are."""
        prefix, patches = x.tensor_split([len(self.prefix)], dim=1)
        return torch.cat([prefix, fn(patches.unflatten(1, grid_size)).flatten(1, 2)], dim=1)

    def pad_for_prefix(self, bias: Float[Tensor, "heads n n"]) -> Float[Tensor, "1 heads l l"]:
        """Extend the bias by zeros for the prefix tokens: they attend, and are attended to, without bias."""
        p = len(self.prefix)
        return F.pad(bias, (p, 0, p, 0))[None]

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters of positional schemes and prefix tokens (timm's hook of this name)."""
        spared = ("prefix", *(f"{place}." for place in PLACES))
        return {name for name, _ in self.named_parameters() if name.startswith(spared)}


def after_blocks(scheme: Position, depth: int) -> list[int]:
    """List the blocks after which the place `between` acts. ValueError if there is no such block."""
    if scheme.after is None:
        return list(range(depth - 1))
    blocks = list(scheme.after) if isinstance(scheme.after, Sequence) else [scheme.after]
    if not all(isinstance(i, int) and 0 <= i < depth for i in blocks) or len(set(blocks)) < len(blocks):
        raise ValueError(
            f"after={scheme.after} must list some of the blocks 0 to {depth - 1} of depth={depth}, "
            "each once: use after=[0], or null for all but the last"
        )
    return blocks
