"""FlexiEmbed: one learned kernel for every patch size."""

import pytest
import torch
from timm.layers import resample_patch_embed

from patchbench.embed.conv import ConvEmbed
from patchbench.embed.flexi import FlexiEmbed

KNOBS = {"train_patches": [], "interpolation": "bicubic", "antialias": True, "pad": False}


def flexi(patch=8, base=12, img_size=(32, 48), **knobs) -> FlexiEmbed:
    return FlexiEmbed(img_size, 3, 16, patch_size=patch, base_patch=base, **(KNOBS | knobs))


@pytest.mark.parametrize("base", [12, [6, 10], 32])
@pytest.mark.parametrize("patch", [4, 16, [8, 16], [1, 2]])
@pytest.mark.parametrize(("interpolation", "antialias"), [("bicubic", True), ("bilinear", False), ("bilinear", True)])
def test_the_kernel_is_that_of_timm(base, patch, interpolation, antialias):
    embed = flexi(patch, base, interpolation=interpolation, antialias=antialias)
    weight = embed.proj.weight.detach()
    expected = resample_patch_embed(weight, list(embed.patch_size), interpolation, antialias)
    torch.testing.assert_close(embed.kernel(embed.patch_size), expected, atol=1e-5, rtol=1e-4)
    conv = ConvEmbed((32, 48), 3, 16, patch_size=patch, pad=False)
    conv.load_state_dict({"proj.weight": expected, "proj.bias": embed.proj.bias})
    images = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(embed(images), conv(images), atol=1e-4, rtol=1e-4)


def test_the_default_is_the_published_resize(build):
    """The code of Beyer et al. calls tf.image.resize: bilinear, no antialiasing."""
    embed = build("embed=flexi", "model=micro", "data.img_size=32", "patch=8").embed
    expected = resample_patch_embed(embed.proj.weight.detach(), [8, 8], "bilinear", antialias=False)
    torch.testing.assert_close(embed.kernel((8, 8)), expected, atol=1e-5, rtol=1e-4)


def test_at_its_own_size_the_kernel_is_the_one_that_is_learned():
    embed = flexi(8, 8)
    torch.testing.assert_close(embed.kernel((8, 8)), embed.proj.weight)


def test_a_resized_patch_gets_the_same_answer():
    small = torch.randn(1, 3, 4, 4)
    large = torch.nn.functional.interpolate(small, 8, mode="bilinear")
    knobs = {"interpolation": "bilinear", "antialias": False, "base": 4}
    learned, resampled = flexi(4, img_size=(4, 4), **knobs), flexi(8, img_size=(8, 8), **knobs)
    resampled.load_state_dict(learned.state_dict())
    torch.testing.assert_close(resampled(large), learned(small), atol=1e-5, rtol=1e-5)


def test_in_training_each_batch_draws_a_size_and_in_evaluation_none_does():
    embed = flexi(8, train_patches=[4, 8, [8, 16]])
    images = torch.randn(1, 3, 32, 48)

    def grids() -> list[tuple[int, int]]:
        torch.manual_seed(0)
        return [tuple(embed(images).shape[1:3]) for _ in range(20)]

    drawn = grids()
    assert set(drawn) == {(8, 12), (4, 6), (4, 3)}
    assert grids() == drawn, "the draw follows from torch's seed"
    embed.eval()
    assert set(grids()) == {(4, 6)} == {embed.grid_size}
    before = torch.get_rng_state()
    embed(images)
    assert torch.equal(torch.get_rng_state(), before)


def test_checkpoints_hold_the_learned_weight_alone():
    assert set(flexi(train_patches=[4]).state_dict()) == {"proj.weight", "proj.bias"}


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"base": None}, r"^base_patch=None is no size"),
        ({"train_patches": [4, 5]}, r"^train_patches=\[4, 5\]: patch=5 does not cover"),
        ({"train_patches": [4, 0]}, r"^train_patches=0 is no size"),
        ({"interpolation": "nearest"}, r"^interpolation=nearest is unknown"),
    ],
)
def test_sizes_that_cannot_be_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        flexi(**knobs)
