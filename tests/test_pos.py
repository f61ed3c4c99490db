"""Positional schemes against independent implementations."""

import pytest
import torch
from timm.layers import RotaryEmbeddingCat, apply_rot_embed_cat, build_sincos2d_pos_embed, resample_abs_pos_embed

from patchbench.layout import Layout
from patchbench.pos.learned import Learned
from patchbench.pos.rope import AxialRope
from patchbench.pos.sincos import SinCos2d

GRIDS = [(4, 4), (3, 7)]


@pytest.mark.parametrize("grid_size", GRIDS)
def test_sincos_is_timms(grid_size):
    scheme = SinCos2d(Layout(grid_size, 48, 3), temperature=1e4, resize="extrapolate")
    ours = scheme(torch.zeros(1, *grid_size, 48))[0].flatten(0, 1)
    torch.testing.assert_close(ours, build_sincos2d_pos_embed(list(grid_size), 48))


@pytest.mark.parametrize("grid_size", GRIDS)
def test_rope_is_timms(grid_size):
    scheme = AxialRope(Layout(grid_size, 48, 3), temperature=100.0, resize="extrapolate")
    theirs = RotaryEmbeddingCat(16, temperature=100, in_pixels=False)
    torch.testing.assert_close(scheme(grid_size), theirs.get_embed(list(grid_size)))
    torch.testing.assert_close(scheme((5, 2)), theirs.get_embed([5, 2]))


def test_rope_depends_on_the_distance_of_two_places_alone():
    rope = AxialRope(Layout((6, 6), 16, 1), temperature=100.0, resize="extrapolate")((6, 6))
    q, k = torch.randn(2, 16)
    turned_q, turned_k = (apply_rot_embed_cat(x.expand(1, 1, 36, 16), rope)[0, 0].unflatten(0, (6, 6)) for x in (q, k))
    torch.testing.assert_close(turned_q[1, 2] @ turned_k[3, 1], turned_q[3, 4] @ turned_k[5, 3])


@pytest.mark.parametrize("grid_size", [(8, 8), (3, 9)])
def test_a_stretched_table_is_timms(grid_size):
    scheme = Learned(Layout((4, 4), 48, 3), std=0.02)
    ours = scheme(torch.zeros(1, *grid_size, 48)).flatten(1, 2)
    table = scheme.table.flatten(0, 1)[None]
    theirs = resample_abs_pos_embed(table, new_size=list(grid_size), old_size=[4, 4], num_prefix_tokens=0)
    torch.testing.assert_close(ours, theirs)
