"""Each embedding does what its docstring claims, compared with independent implementations."""

import numpy as np
import pytest
import torch
from PIL import Image
from support import every, options
from torch import nn
from torch.nn.functional import conv2d

from patchbench.checks import size
from patchbench.embed.bottleneck import BottleneckEmbed
from patchbench.embed.channels import STANDARDS, ChannelwiseEmbed, LuminanceEmbed, OneChannelEmbed
from patchbench.embed.conv import ConvEmbed
from patchbench.embed.linear import LinearEmbed
from patchbench.embed.overlap import OverlapEmbed, OverlapSumEmbed
from patchbench.nets.cost import cost
from patchbench.nets.init import init_projection


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
    with pytest.raises(ValueError, match=r"^kernel_size="):
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
    with pytest.raises(ValueError, match=r"^standard=pal is unknown: use rec601 or rec709"):
        LuminanceEmbed((16, 16), 3, 8, patch_size=4, standard="pal", pad=False)
    with pytest.raises(ValueError, match=r"^channel_dim=0"):
        ChannelwiseEmbed((16, 16), 3, 8, patch_size=4, channel_dim=0, pad=False)


def test_pixel_is_conv_at_patch_1_whatever_the_patch(build):
    net = build("embed=pixel", "patch=16", "model=micro", "data.img_size=[4,6]")
    assert isinstance(net.embed, ConvEmbed)
    assert net.embed.grid_size == (4, 6)


@pytest.mark.parametrize("name", every(options("embed"), 3))
def test_every_layer_of_every_embedding_starts_with_the_variance_of_its_fan_in(build, name):
    net = build(f"embed={name}", "model=tiny", "model.depth=1")
    layers = [m for n, m in net.embed.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "backbone" not in n]
    assert layers
    for layer in layers:
        gain = layer.weight.std().item() * layer.weight[0].numel() ** 0.5
        assert gain == pytest.approx(1, abs=4 * layer.weight.numel() ** -0.5)
        assert layer.bias is None or not layer.bias.any()


KERNELS = [(5, 2, 0), (3, 1, 1), (4, 4, 0), (2, 3, 2)]


@pytest.mark.parametrize(("kernel_size", "stride", "padding"), KERNELS)
@pytest.mark.parametrize("in_chans", [1, 3, 4])
def test_a_sum_of_2d_convolutions_is_the_convolution(kernel_size, stride, padding, in_chans):
    knobs = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
    images = torch.randn(2, in_chans, 32, 20)
    built = []
    for embed in (OverlapEmbed, OverlapSumEmbed):
        torch.manual_seed(0)
        built.append(embed((32, 20), in_chans, 16, **knobs).apply(init_projection))
    once, written_out = built
    torch.testing.assert_close(written_out.state_dict(), once.state_dict(), rtol=0, atol=0)
    assert written_out.grid_size == once.grid_size
    torch.testing.assert_close(written_out(images), once(images), rtol=1e-5, atol=2e-6)
    with torch.no_grad():
        for part in built:
            part.double().proj.bias.normal_(generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(written_out(images.double()), once(images.double()), rtol=1e-12, atol=1e-12)


def test_a_sum_of_2d_convolutions_computes_each_channel_by_itself(monkeypatch):
    embed, seen = OverlapSumEmbed((32, 32), 3, 16, kernel_size=5, stride=2, padding=0), []
    images = torch.randn(2, 3, 32, 32)

    def recorded(inputs, weight, *rest):
        seen.append((tuple(inputs.shape), tuple(weight.shape)))
        return conv2d(inputs, weight, *rest)

    monkeypatch.setattr("patchbench.embed.overlap.F.conv2d", recorded)
    embed(images)
    assert seen == [((2, 1, 32, 32), (16, 1, 5, 5))] * 3


def test_every_way_to_write_one_convolution_costs_the_same_and_trains_alike(build):
    nets = []
    for embed in ("overlap", "overlap_sum"):
        torch.manual_seed(0)
        nets.append(build(f"embed={embed}", "model=micro", "data.img_size=16"))
    images = torch.randn(4, 3, 16, 16)
    for net in nets:
        net(images).square().sum().backward()
    one, other = ({name: p.grad for name, p in net.named_parameters() if p.numel()} for net in nets)
    torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
    costs = [cost(net, net.layout, 3, (16, 16)) for net in nets]
    assert costs[0] == costs[1]


@pytest.mark.parametrize("patch", [4, [4, 8]])
@pytest.mark.parametrize("width", [1, 10, 200])
def test_a_bottleneck_is_a_linear_map_of_the_patch_of_a_rank_no_higher_than_its_width(patch, width):
    embed = BottleneckEmbed((16, 24), 3, 32, patch_size=patch, width=width, pad=False).apply(init_projection).double()
    linear = LinearEmbed((16, 24), 3, 32, patch_size=patch, pad=False).double()
    weight = embed.proj.weight @ embed.reduce.weight
    with torch.no_grad():
        embed.reduce.bias.normal_()
        linear.load_state_dict({"proj.weight": weight, "proj.bias": embed.proj(embed.reduce.bias)})
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    torch.testing.assert_close(embed(images), linear(images))
    assert torch.linalg.matrix_rank(weight) == min(width, 32)


def test_the_width_of_a_bottleneck_leaves_the_trunk_as_it_is(build):
    def trunk(width: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        net = build("embed=bottleneck", f"embed.width={width}", "model=micro", "patch=4", "data.img_size=16")
        assert net.embed(torch.randn(1, 3, 16, 16)).shape == (1, 4, 4, 48)
        return {name: w for name, w in net.state_dict().items() if name.startswith(("blocks", "head", "norm"))}

    for width in (3, 192):  # a sixteenth of the 48 values of a patch, and four times as many
        torch.testing.assert_close(trunk(width), trunk(48), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"^embed\.width=0 .*use embed\.width=1 or more"):
        trunk(0)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_channel_is_conv_of_that_channel_and_sees_no_other(channel):
    embed = OneChannelEmbed((16, 24), 3, 32, patch_size=[4, 8], channel=channel, pad=False)
    conv = ConvEmbed((16, 24), 1, 32, patch_size=[4, 8], pad=False)
    conv.load_state_dict(embed.state_dict())
    images = torch.randn(2, 3, 16, 24, requires_grad=True)
    tokens = embed(images)
    torch.testing.assert_close(tokens, conv(images[:, channel : channel + 1]))
    tokens.square().sum().backward()
    seen = images.grad.flatten(2).abs().sum((0, 2)) > 0
    assert seen.tolist() == [c == channel for c in range(3)]


@pytest.mark.parametrize("channel", [-1, 3])
def test_a_channel_that_is_not_there_is_refused(channel):
    with pytest.raises(ValueError, match=rf"^channel={channel} does not exist: .* channels 0 to 2$"):
        OneChannelEmbed((16, 16), 3, 8, patch_size=4, channel=channel, pad=False)
