"""Embeddings of several convolutions or of a whole backbone: number of tokens, windows, published parameters."""

import numpy as np
import pytest
import timm
import torch
from timm.models.pvt_v2 import OverlapPatchEmbed as PvtEmbed
from torch import nn

from patchbench.embed.conv import ConvEmbed
from patchbench.embed.hybrid import HybridEmbed
from patchbench.embed.overlap import OverlapEmbed, OverlapPatchEmbed
from patchbench.embed.spt import ShiftedPatchEmbed
from patchbench.embed.stem import HMlpEmbed, OverlapStackEmbed, StemEmbed
from patchbench.nets.init import init_projection

NORMED = {"norm": "batch", "act": "relu", "pad": False}
STACKS = {
    "overlap_patch": (OverlapPatchEmbed, {"kernel_size": None, "pad": False}),
    "overlap_stack": (OverlapStackEmbed, {"kernel_size": 5, **NORMED}),
    "stem": (StemEmbed, NORMED),
    "hmlp": (HMlpEmbed, NORMED),
    "spt": (ShiftedPatchEmbed, {"pad": False}),
}


def stack(name: str, img_size, patch, embed_dim=32, **knobs) -> nn.Module:
    kind, defaults = STACKS[name]
    return kind(img_size, 3, embed_dim, patch_size=patch, **(defaults | knobs)).apply(init_projection)


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("patch", [2, 4, 8, 16, [4, 8], [16, 2], [2, 4]])
@pytest.mark.parametrize("img_size", [(32, 32), (16, 48)])
def test_has_the_tokens_of_conv(name, patch, img_size):
    embed = stack(name, img_size, patch)
    conv = ConvEmbed(img_size, 3, 32, patch_size=patch, pad=False)
    assert embed.grid_size == conv.grid_size
    images = torch.randn(2, 3, *img_size)
    assert embed(images).shape == conv(images).shape
    with pytest.raises(ValueError, match="does not cover"):
        embed(torch.randn(2, 3, img_size[0] + 1, img_size[1]))


@pytest.mark.parametrize("name", STACKS)
def test_pads_at_the_bottom_and_right(name):
    embed = stack(name, (30, 20), 8, pad=True).eval()
    assert embed.grid_size == (4, 3)
    images = torch.randn(2, 3, 30, 20)
    whole = torch.zeros(2, 3, 32, 24)
    whole[:, :, :30, :20] = images
    torch.testing.assert_close(embed(images), embed(whole))


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("patch", [4, 8])
def test_only_without_overlap_does_a_token_see_its_own_patch_alone(name, patch):
    torch.manual_seed(0)
    embed = stack(name, (32, 32), patch).eval()
    images = torch.randn(8, 3, 32, 32, requires_grad=True)  # several, since a ReLU may hide a pixel of one image
    embed(images)[:, 1, 1].sum().backward()
    seen = images.grad.abs().sum((0, 1))
    own = torch.zeros(32, 32, dtype=torch.bool)
    own[patch : 2 * patch, patch : 2 * patch] = True
    assert seen[own].all(), "every pixel of the patch is seen"
    assert (seen[~own].sum() == 0) == (name == "hmlp")


def test_overlap_patch_is_the_projection_of_pvt_v2_but_centred_on_the_patch():
    theirs = PvtEmbed(patch_size=7, stride=4, in_chans=3, embed_dim=32)
    ours = stack("overlap_patch", (32, 48), 4)
    ours.proj.load_state_dict(theirs.proj.state_dict())
    images = torch.randn(2, 3, 32, 48)
    expected = theirs(torch.roll(images, (-2, -2), (2, 3)))
    inside = (slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(theirs.norm(ours(images))[inside], expected[inside])


@pytest.mark.parametrize("patch", [4, [2, 3]])
def test_a_window_as_wide_as_the_patch_is_conv(patch):
    images = torch.randn(2, 3, 12, 24)
    ours, conv = (
        stack("overlap_patch", (12, 24), patch, kernel_size=patch),
        ConvEmbed((12, 24), 3, 32, patch_size=patch, pad=False),
    )
    conv.load_state_dict(ours.state_dict())
    assert torch.equal(ours(images), conv(images))


def test_one_layer_of_the_stack_is_the_overlapping_convolution_with_padding():
    ours, once = stack("overlap_stack", (32, 20), 2), OverlapEmbed((32, 20), 3, 32, kernel_size=5, stride=2, padding=2)
    once.load_state_dict({k: v for k, v in ours.state_dict().items() if k.startswith("proj")})
    images = torch.randn(2, 3, 32, 20)
    assert torch.equal(ours(images), once(images))


@pytest.mark.parametrize(
    ("name", "patch", "kernels"),
    [
        ("overlap_stack", 16, [(3, 6, 5, 2), (6, 12, 5, 2), (12, 24, 5, 2), (24, 48, 5, 2)]),
        ("stem", 16, [(3, 6, 3, 2), (6, 12, 3, 2), (12, 24, 3, 2), (24, 48, 3, 2), (48, 48, 1, 1)]),
        ("hmlp", 16, [(3, 12, 4, 4), (12, 12, 2, 2), (12, 48, 2, 2)]),
        ("hmlp", 8, [(3, 12, 4, 4), (12, 48, 2, 2)]),
        ("hmlp", 4, [(3, 12, 2, 2), (12, 48, 2, 2)]),
    ],
)
def test_layers_are_those_of_the_paper(name, patch, kernels):
    convs = [m for m in stack(name, (32, 32), patch, 48).modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in convs] == kernels


def test_norm_and_activation_are_knobs():
    def kinds(name: str, **knobs: str) -> list[str]:
        return [type(m).__name__ for m in stack(name, (16, 16), 4, **knobs).stack]

    assert kinds("stem") == ["Conv2d", "BatchNorm2d", "ReLU"] * 2
    assert kinds("overlap_stack") == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds("hmlp", act="gelu") == ["Conv2d", "BatchNorm2d", "GELU", "Conv2d", "BatchNorm2d"]
    assert kinds("stem", norm="layer", act="none") == ["Conv2d", "LayerNorm2d"] * 2
    assert kinds("overlap_stack", norm="none", act="none") == ["Conv2d"]
    for wrong in ({"norm": "group"}, {"act": "silu"}):
        with pytest.raises(ValueError, match=r"^norm=.* act=.*may be batch, layer, none"):
            stack("stem", (16, 16), 4, **wrong)


@pytest.mark.parametrize("name", ["overlap_stack", "stem", "hmlp"])
@pytest.mark.parametrize("patch", [1, 6, [4, 6]])
def test_a_patch_that_halving_does_not_reach_is_refused(name, patch):
    with pytest.raises(ValueError, match=r"^patch=.* powers of two from 2 on, such as patch="):
        stack(name, (24, 24), patch)


def test_a_window_that_skips_pixels_or_leaves_the_grid_is_refused():
    for kernel in (7, [4, 7], [3, 8]):
        with pytest.raises(ValueError, match=r"^kernel_size=.* is smaller than patch=\[4,8\].*kernel_size=\[7,15\]"):
            stack("overlap_patch", (16, 16), [4, 8], kernel_size=kernel)
    for kernel in (1, 4):
        with pytest.raises(ValueError, match=rf"^kernel_size={kernel} must be odd"):
            stack("overlap_stack", (16, 16), 4, kernel_size=kernel)


def test_shifted_patches_are_cut_from_the_image_half_a_patch_away():
    embed = stack("spt", (8, 18), [4, 6])
    images = torch.randn(2, 3, 8, 18)
    shown = {}
    embed.norm.register_forward_pre_hook(lambda _, inputs: shown.update(patches=inputs[0]))
    tokens = embed(images)
    wide = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (3, 3)))
    for i, j in np.ndindex(2, 3):
        windows = [(0, 0), (2, 3), (2, -3), (-2, 3), (-2, -3)]  # the image; then up-left shows what is below and right
        cut = [wide[:, :, 4 * i + 2 + y : 4 * i + 6 + y, 6 * j + 3 + x : 6 * j + 9 + x] for y, x in windows]
        expected = np.concatenate([c.reshape(2, -1) for c in cut], 1)
        np.testing.assert_array_equal(shown["patches"][:, i, j], expected)
        normed = (expected - expected.mean(1, keepdims=True)) / np.sqrt(expected.var(1, keepdims=True) + 1e-5)
        projected = normed @ embed.proj.weight.detach().numpy().T + embed.proj.bias.detach().numpy()
        np.testing.assert_allclose(tokens[:, i, j].detach(), projected, atol=1e-5)


def test_a_patch_of_one_row_or_column_cannot_be_shifted():
    with pytest.raises(ValueError, match=r"patch=\[4,1\] cannot be shifted"):
        stack("spt", (16, 16), [4, 1])


def hybrid(img_size=(32, 48), in_chans=3, backbone="resnet18", out_index=2, **knobs) -> HybridEmbed:
    knobs = {"pretrained": False} | knobs
    return HybridEmbed(img_size, in_chans, 32, backbone=backbone, out_index=out_index, **knobs).apply(init_projection)


@pytest.mark.parametrize(
    ("backbone", "out_index", "stride"),
    [
        ("resnet18", 0, 2),
        ("resnet18", 3, 16),
        ("resnet18", -1, 32),
        ("convnext_atto", 1, 8),
        ("mobilenetv3_small_050", 2, 8),
        ("vgg11", 1, 2),
    ],
)
def test_the_grid_of_a_backbone_is_known_before_it_runs(backbone, out_index, stride):
    embed = hybrid(backbone=backbone, out_index=out_index)
    assert embed.grid_size == (32 // stride, -(-48 // stride))
    tokens = embed(torch.randn(2, 3, 32, 48))
    assert tokens.shape == (2, *embed.grid_size, 32)
    tokens.square().sum().backward()
    assert [name for name, p in embed.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_hybrid_is_the_feature_map_of_timm_projected():
    embed = hybrid().eval()
    theirs = timm.create_model("resnet18", pretrained=False).eval()
    theirs.load_state_dict(embed.backbone.state_dict(), strict=False)
    images = torch.randn(2, 3, 32, 48)
    features = theirs.forward_intermediates(images, indices=[2], intermediates_only=True)[0]
    expected = torch.einsum("b c h w, d c -> b h w d", features, embed.proj.weight[:, :, 0, 0]) + embed.proj.bias
    torch.testing.assert_close(embed(images), expected, atol=1e-4, rtol=1e-4)


def test_a_backbone_whose_channels_come_last_is_read_as_such():
    embed = hybrid((64, 64), backbone="mambaout_femto", out_index=1)
    assert embed.channels_last
    assert embed.grid_size == (8, 8)
    assert embed(torch.randn(1, 3, 64, 64)).shape == (1, 8, 8, 32)


def test_the_rule_for_projections_spares_the_backbone():
    torch.manual_seed(0)
    raw = HybridEmbed((32, 32), 3, 32, backbone="resnet18", pretrained=False, out_index=2)
    before = {name: w.clone() for name, w in raw.state_dict().items()}
    after = raw.apply(init_projection).state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"proj.weight", "proj.bias"}


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"backbone": "resnet81"}, r"^backbone=resnet81 is not a model of timm: did you mean resnet"),
        ({"backbone": "qqqq"}, r"^backbone=qqqq is not a model of timm: timm\.list_models"),
        ({"out_index": 9}, r"^backbone=resnet18 gives no features at out_index=9"),
        (
            {"out_index": 4, "img_size": (16, 48)},
            r"^backbone=resnet18 has stride 32 at out_index=4, which exceeds .*16x48",
        ),
    ],
)
def test_a_backbone_that_cannot_give_tokens_is_refused(knobs, message):
    with pytest.raises(ValueError, match=message) as refused:
        hybrid(**knobs)
    assert "\n" not in str(refused.value)
