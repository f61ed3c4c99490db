"""Images to tokens, each embedding against what it claims to be."""

import numpy as np
import pytest
import torch
from conftest import options
from PIL import Image
from torch import nn
from torch.nn.functional import conv2d

from patchbench.embed.channels import STANDARDS, ChannelwiseEmbed, LuminanceEmbed
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


@pytest.mark.parametrize("patch", [4, [4, 8]])
def test_channelwise_is_one_convolution_per_channel_then_a_linear_map(patch):
    embed = ChannelwiseEmbed((16, 24), 3, 32, patch_size=patch, channel_dim=10, pad=False)
    images = torch.randn(2, 3, 16, 24)
    apart = [
        conv2d(images[:, c : c + 1], weight, bias, stride=embed.patch_size)
        for c, (weight, bias) in enumerate(zip(embed.proj.weight.split(10), embed.proj.bias.split(10), strict=True))
    ]
    mixed = [a.permute(0, 2, 3, 1) @ w.T for a, w in zip(apart, embed.mix.weight.split(10, dim=1), strict=True)]
    torch.testing.assert_close(embed(images), sum(mixed) + embed.mix.bias, atol=1e-5, rtol=1e-5)


def test_channelwise_is_one_linear_map_of_the_patch():
    embed = ChannelwiseEmbed((16, 24), 3, 32, patch_size=4, channel_dim=None, pad=False)
    conv = ConvEmbed((16, 24), 3, 32, patch_size=4, pad=False)
    mix = embed.mix.weight.unflatten(1, (3, 32))
    kernels = torch.einsum("o c k, c k p q -> o c p q", mix, embed.proj.weight[:, 0].unflatten(0, (3, 32)))
    bias = embed.mix.weight @ embed.proj.bias + embed.mix.bias
    conv.load_state_dict({"proj.weight": kernels, "proj.bias": bias})
    images = torch.randn(2, 3, 16, 24)
    torch.testing.assert_close(embed(images), conv(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("standard", ["rec601", "rec709"])
def test_luminance_sees_grey_as_it_is_and_no_colour(standard):
    embed = LuminanceEmbed((16, 24), 3, 32, patch_size=4, standard=standard, pad=False)
    grey = torch.randn(2, 1, 16, 24)
    seen = conv2d(grey, embed.proj.weight, embed.proj.bias, stride=4).permute(0, 2, 3, 1)
    torch.testing.assert_close(embed(grey.expand(-1, 3, -1, -1)), seen, atol=1e-5, rtol=1e-5)
    red, green, blue = STANDARDS[standard]
    hue = torch.randn(2, 2, 16, 24)
    colour = torch.cat([hue[:, :1], hue[:, 1:], -(red * hue[:, :1] + green * hue[:, 1:]) / blue], 1)
    torch.testing.assert_close(embed(grey + colour), seen, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(embed(1e3 * colour), embed(0 * colour), atol=1e-2, rtol=0)


def test_luminance_weights_are_those_of_pillow():
    levels = np.random.default_rng(0).integers(256, size=(16, 24, 3), dtype=np.uint8)
    embed = LuminanceEmbed((16, 24), 3, 1, patch_size=1, standard="rec601", pad=False)
    nn.init.ones_(embed.proj.weight)
    nn.init.zeros_(embed.proj.bias)
    seen = embed(torch.from_numpy(levels).permute(2, 0, 1)[None].float())[0, :, :, 0].detach().numpy()
    assert np.abs(seen - np.asarray(Image.fromarray(levels).convert("L"))).max() < 1


def test_colour_options_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="in_chans=1"):
        LuminanceEmbed((16, 16), 1, 8, patch_size=4, standard="rec601", pad=False)
    with pytest.raises(ValueError, match=r"embed\.standard=pal is unknown: use rec601 or rec709"):
        LuminanceEmbed((16, 16), 3, 8, patch_size=4, standard="pal", pad=False)
    with pytest.raises(ValueError, match=r"embed\.channel_dim=0"):
        ChannelwiseEmbed((16, 16), 3, 8, patch_size=4, channel_dim=0, pad=False)


def test_pixel_is_conv_at_patch_1_whatever_the_patch(build):
    net = build("embed=pixel", "patch=16", "model=micro", "data.img_size=[4,6]")
    assert isinstance(net.embed, ConvEmbed)
    assert net.embed.grid_size == (4, 6)


@pytest.mark.parametrize("name", options("embed"))
def test_every_layer_of_every_embedding_starts_with_the_variance_of_its_fan_in(build, name):
    net = build(f"embed={name}", "model=tiny", "model.depth=1")
    layers = [m for n, m in net.embed.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "backbone" not in n]
    assert layers
    for layer in layers:
        gain = layer.weight.std().item() * layer.weight[0].numel() ** 0.5
        assert gain == pytest.approx(1, abs=4 * layer.weight.numel() ** -0.5)
        assert layer.bias is None or not layer.bias.any()
