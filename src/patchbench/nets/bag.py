"""A bag of patches: the average of logits computed from each patch alone (after Brendel & Bethge, 2019)."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from timm.layers import Mlp
from torch import Tensor, nn

from patchbench.checks import Size, one_of, positive, qualified
from patchbench.layout import Layout
from patchbench.nets.init import init_projection, init_trunk


class Bag(nn.Module):
    """Map images to class logits by a ViT without attention and without position: no token sees another.

    The norm comes before the average and the head is linear, so logits are a sum over tokens. A norm after the average,
    as in the ViT, would show whether two tokens agree.
    embed: builds the embedding from (img_size, in_chans, embed_dim); an embedding whose windows are wider than its
    patches lets a token see its neighbours. residual: dtype of the residual stream under autocast, `float32` or
    `bfloat16`.
    """

    def __init__(
        self,
        embed: Callable[[Size, int, int], nn.Module],
        *,
        img_size: Size,
        in_chans: int,
        num_classes: int,
        embed_dim: int,
        depth: int,
        mlp_ratio: float,
        residual: str,
    ) -> None:
        super().__init__()
        if min(embed_dim, depth) < 1:
            raise ValueError(f"embed_dim={embed_dim} and depth={depth} must be at least 1")
        positive("mlp_ratio", mlp_ratio)
        one_of("residual", residual, ("float32", "bfloat16"))
        self.residual = getattr(torch, residual)
        self.blocks = nn.ModuleList(Block(embed_dim, int(embed_dim * mlp_ratio)) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)
        self.apply(init_trunk)
        with qualified("embed", getattr(embed, "keywords", ())):
            self.embed = embed(img_size, in_chans, embed_dim).apply(init_projection)
        grid_size: Any = self.embed.grid_size
        self.layout = Layout(grid_size, embed_dim, num_heads=0)

    def forward(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b classes"]:
        x = self.embed(images).flatten(1, 2)
        if not x.is_meta and torch.is_autocast_enabled(x.device.type):
            x = x.to(self.residual)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))

    def no_weight_decay(self) -> set[str]:
        return set()


class Block(nn.Module):
    """Block of the ViT without attention: a norm and an MLP for each token, with a residual connection."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = Mlp(embed_dim, hidden_dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return x + self.mlp(self.norm(x))
