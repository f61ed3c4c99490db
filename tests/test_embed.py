"""Images to tokens, each embedding against what it claims to be."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from patchbench.embed.conv import ConvEmbed
from patchbench.embed.linear import LinearEmbed
from patchbench.embed.overlap import OverlapEmbed
from patchbench.layout import size
from patchbench.vit import init_projection


@pytest.mark.parametrize("patch", [4, [4, 8], [8, 2]])
@pytest.mark.parametrize("img_size", [(16, 16), (24, 32)])
def test_conv_and_linear_are_one_map_under_tied_weights(img_size, patch):
    conv = ConvEmbed(img_size, 3, 32, patch_size=patch, pad=False)
    linear = LinearEmbed(img_size, 3, 32, patch_size=patch, pad=False)
    linear.load_state_dict({"proj.weight": conv.proj.weight.flatten(1), "proj.bias": conv.proj.bias})
    images = torch.randn(2, 3, *img_size)
    torch.testing.assert_close(conv(images), linear(images), rtol=1e-5, atol=1e-5)
    assert conv(images).shape == (2, *conv.grid_size, 32)


def test_conv_and_linear_start_as_one_map_at_one_seed():
    outputs = []
    for embed in (ConvEmbed, LinearEmbed):
        torch.manual_seed(0)
        built = embed((16, 16), 3, 32, patch_size=4, pad=False).apply(init_projection)
        outputs.append(built(torch.ones(1, 3, 16, 16)))
    torch.testing.assert_close(*outputs)


def test_every_projection_starts_with_the_variance_of_its_fan_in():
    for embed in (
        ConvEmbed((32, 32), 3, 512, patch_size=4, pad=False),
        LinearEmbed((32, 32), 3, 512, patch_size=4, pad=False),
        OverlapEmbed((32, 32), 3, 512, kernel_size=5, stride=2, padding=0),
    ):
        weight = embed.apply(init_projection).proj.weight
        assert weight.std().item() * weight[0].numel() ** 0.5 == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("embed", [ConvEmbed, LinearEmbed])
def test_patches_that_do_not_cover_the_image_are_refused_with_sizes_that_would_fit(embed):
    with pytest.raises(
        ValueError, match=r"patch=16 .*data\.img_size=30 .*data\.img_size=16 or data\.img_size=32.*1\|2\|3\|5"
    ):
        embed((30, 30), 3, 8, patch_size=16, pad=False)
    fits = embed((32, 32), 3, 8, patch_size=16, pad=False)
    with pytest.raises(ValueError, match="does not cover"):
        fits(torch.randn(1, 3, 40, 32))


@pytest.mark.parametrize("embed", [ConvEmbed, LinearEmbed])
def test_padding_adds_zeros_at_the_bottom_and_right(embed):
    padded = embed((30, 20), 3, 8, patch_size=16, pad=True)
    assert padded.grid_size == (2, 2)
    images = torch.randn(2, 3, 30, 20)
    whole = torch.zeros(2, 3, 32, 32)
    whole[:, :, :30, :20] = images
    torch.testing.assert_close(padded(images), padded(whole))


@pytest.mark.parametrize("patch", [0, -4, "abc", [4], [4, 4, 4], 2.5, True, None])
def test_a_patch_that_is_no_size_is_refused_by_name(patch):
    with pytest.raises(ValueError, match=r"^patch=.* is no size"):
        size("patch", patch)


@pytest.mark.parametrize(("pixels", "places"), [(32, 14), (224, 110)])
def test_kernel_5_stride_2_gives_as_many_tokens_as_the_document_says(pixels, places):
    embed = OverlapEmbed((pixels, pixels), 3, 768, kernel_size=5, stride=2, padding=0)
    assert embed.grid_size == (places, places)
    with torch.device("meta"):
        on_meta = OverlapEmbed((pixels, pixels), 3, 768, kernel_size=5, stride=2, padding=0)
    assert on_meta(torch.empty(1, 3, pixels, pixels, device="meta")).shape == (1, places, places, 768)


def test_overlap_is_the_convolution_as_written():
    embed = OverlapEmbed((32, 20), 3, 16, kernel_size=5, stride=2, padding=1)
    images = torch.randn(2, 3, 32, 20)
    written = conv2d(images, embed.proj.weight, embed.proj.bias, stride=2, padding=1)
    assert torch.equal(embed(images), written.permute(0, 2, 3, 1))
    assert isinstance(embed.proj, nn.Conv2d)


@pytest.mark.parametrize("knobs", [{"kernel_size": 40}, {"stride": 0}, {"padding": -1}])
def test_a_window_that_cannot_be_laid_is_refused(knobs):
    with pytest.raises(ValueError, match=r"embed\.kernel_size="):
        OverlapEmbed((32, 32), 3, 8, **({"kernel_size": 5, "stride": 2, "padding": 0} | knobs))
