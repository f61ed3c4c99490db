"""FixedEmbed: each basis is the transform that its name promises, and training does not change it."""

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import torch
from einops import rearrange
from sklearn.decomposition import PCA
from support import some
from torch import Tensor, nn

from patchbench.embed.fixed import FixedEmbed
from patchbench.nets.init import init_projection

KNOBS = {"basis_dim": None, "trainable": False, "fit_images": 1024, "eps": 0.0, "pad": False}
BASES = ["dct", "hadamard", "random", "orthonormal", "pca", "whitened"]


def fixed(basis: str, patch=4, img_size=(16, 24), in_chans=3, **knobs) -> FixedEmbed:
    return FixedEmbed(img_size, in_chans, 32, patch_size=patch, basis=basis, **(KNOBS | knobs)).apply(init_projection)


def patches(images: Tensor, p: int, q: int) -> np.ndarray:
    return rearrange(images.double().numpy(), "b c (h p) (w q) -> (b h w) c p q", p=p, q=q)


def by_frequency(p: int, q: int) -> list[tuple[int, int]]:
    return sorted(np.ndindex(p, q), key=lambda uv: (uv[0] / p) ** 2 + (uv[1] / q) ** 2)


@pytest.mark.parametrize("patch", [4, [4, 8], [2, 6]])
def test_dct_is_that_of_scipy_on_each_channel_low_frequencies_first(patch):
    embed = fixed("dct", patch)
    p, q = embed.patch_size
    images = torch.randn(2, 3, 16, 24)
    expected = scipy.fft.dctn(patches(images, p, q), axes=(2, 3), norm="ortho")
    expected = np.stack([expected[:, :, u, v] for u, v in by_frequency(p, q)], 1).reshape(len(expected), -1)
    torch.testing.assert_close(
        embed.coefficients(images).flatten(0, 2).double(), torch.tensor(expected), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("patch", [4, [4, 8], [1, 2]])
def test_hadamard_is_that_of_scipy_on_each_channel_few_sign_changes_first(patch):
    embed = fixed("hadamard", patch)
    p, q = embed.patch_size
    images = torch.randn(2, 3, 16, 24)
    rows, cols = (sorted(scipy.linalg.hadamard(n).tolist(), key=lambda r: (np.diff(r) != 0).sum()) for n in (p, q))
    expected = np.array(rows) @ patches(images, p, q) @ np.array(cols).T / (p * q) ** 0.5
    expected = np.stack([expected[:, :, u, v] for u, v in by_frequency(p, q)], 1).reshape(len(expected), -1)
    torch.testing.assert_close(
        embed.coefficients(images).flatten(0, 2).double(), torch.tensor(expected), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("basis", ["dct", "hadamard", "orthonormal", "pca"])
def test_a_full_orthonormal_basis_keeps_lengths_and_angles(basis):
    embed = fixed(basis)
    embed.fit(torch.randn(100, 3, 16, 24))
    torch.testing.assert_close(embed.basis @ embed.basis.T, torch.eye(48), atol=1e-5, rtol=0)
    shorter = fixed(basis, basis_dim=5)
    shorter.fit(torch.randn(100, 3, 16, 24))
    torch.testing.assert_close(shorter.basis @ shorter.basis.T, torch.eye(5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("basis", ["dct", "hadamard", "random", "orthonormal", "pca"])
def test_bases_keep_equal_numbers_of_one_channel_and_unequal_ones_of_three_that_are_equal(basis):
    def numbers(images: Tensor, basis_dim: int) -> int:
        embed = fixed(basis, in_chans=images.shape[1], basis_dim=basis_dim)
        embed.fit(images)
        seen = embed.coefficients(images).flatten(0, 2)
        return int((torch.linalg.svdvals(seen.double() - seen.mean(0)) > 1e-3).sum())

    grey = torch.randn(60, 1, 16, 24)
    assert numbers(grey, 6) == numbers(torch.randn(60, 3, 16, 24), 6) == 6
    equal = grey.repeat(1, 3, 1, 1)
    assert (numbers(equal, 6), numbers(equal, 18)) == ((2, 6) if basis in ("dct", "hadamard") else (6, 16))


def test_a_random_basis_has_the_variance_of_its_fan_in():
    embed = fixed("random", 16, (16, 16))
    assert embed.basis.std().item() * 768**0.5 == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("dim", [48, 7])
def test_pca_is_that_of_scikit_learn_on_all_patches(whiten, dim):
    images = torch.randn(130, 3, 16, 24).cumsum(3) + torch.arange(3)[:, None, None]
    embed = fixed("whitened" if whiten else "pca", basis_dim=dim)
    embed.fit(images)
    flat = patches(images, 4, 4).reshape(-1, 48)
    expected = PCA(dim, whiten=whiten, svd_solver="full").fit_transform(flat)
    seen = embed.coefficients(images).flatten(0, 2).double().numpy()
    same_sign = np.sign((seen * expected).sum(0))
    np.testing.assert_allclose(seen, expected * same_sign, atol=1e-3)
    if whiten:
        np.testing.assert_allclose(np.cov(seen.T), np.eye(dim), atol=1e-3)


def test_a_fit_repeats_to_the_bit_and_survives_patches_that_hardly_differ():
    grey = torch.randn(40, 1, 16, 24).repeat(1, 3, 1, 1)
    one, same = fixed("whitened", eps=1e-5), fixed("whitened", eps=1e-5)
    one.fit(grey)
    same.fit(grey)
    assert torch.equal(one.basis, same.basis)
    assert torch.equal(one.mean, same.mean)
    assert one.coefficients(grey).abs().max() < 100, "what three equal channels cannot show is not blown up"


@pytest.mark.parametrize("eps", [0.0, 1e-5])
@pytest.mark.parametrize("level", [0.0, 1.7])
@pytest.mark.parametrize("varying", some([0, 5, 24], 5))
def test_whitening_leaves_out_what_does_not_vary(eps, level, varying):
    """Borders of digits are black in every image, and images may be constant: their variance is zero."""
    images = torch.full((200, 3, 16, 24), level)
    images[..., :varying] = torch.randn(200, 3, 16, varying)
    embed = fixed("whitened", eps=eps, patch=[16, 24])
    embed.fit(images)
    seen = embed.coefficients(images).flatten(0, 2)
    assert embed.basis.isfinite().all()
    rank = min(3 * 16 * varying, 199)
    if eps == 0:
        torch.testing.assert_close(seen.std(0, correction=0)[:rank], torch.ones(rank), atol=1e-2, rtol=0)
        assert not embed.basis[rank:].any()
    assert seen.std(0)[rank:].max() < 1e-2


def test_coefficients_are_computed_in_full_float32_and_nothing_else_is(monkeypatch):
    embed, seen = fixed("dct"), []
    linear = torch.nn.functional.linear

    def recorded(*arguments):
        seen.append(torch.get_float32_matmul_precision())
        return linear(*arguments)

    monkeypatch.setattr("torch.nn.functional.linear", recorded)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # as the trainer does on a GPU
    try:
        embed(torch.randn(2, 3, 16, 24))
        assert seen == ["highest", "high"], "the basis, then the projection"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_before_its_fit_a_fitted_basis_gives_no_number_and_a_checkpoint_brings_it():
    images = torch.randn(50, 3, 16, 24)
    fitted, loaded = fixed("pca"), fixed("pca")
    assert loaded(images).isnan().all()
    fitted.fit(images)
    loaded.load_state_dict(fitted.state_dict())
    assert torch.equal(fitted(images), loaded(images))
    given = fixed("dct")
    before = given.basis.clone()
    given.fit(images)
    assert torch.equal(given.basis, before)


@pytest.mark.parametrize("basis", BASES)
def test_a_frozen_basis_is_no_parameter_and_a_trainable_one_is(basis):
    frozen, trainable = fixed(basis), fixed(basis, trainable=True)
    assert {name for name, _ in frozen.named_parameters()} == {"proj.weight", "proj.bias"}
    assert {name for name, _ in trainable.named_parameters()} == {"basis", "proj.weight", "proj.bias"}
    assert set(frozen.state_dict()) == set(trainable.state_dict())
    for embed in (frozen, trainable):
        embed.fit(torch.randn(20, 3, 16, 24))
        start = embed.basis.clone()
        optimizer = torch.optim.SGD(embed.parameters(), lr=0.1)
        embed(torch.randn(2, 3, 16, 24)).square().sum().backward()
        optimizer.step()
        assert torch.equal(embed.basis, start) == (embed is frozen)


def test_the_rule_for_projections_does_not_touch_the_basis():
    embed = FixedEmbed((16, 24), 3, 32, patch_size=4, basis="dct", **KNOBS)
    before = embed.basis.clone()
    weight = embed.apply(init_projection).proj.weight
    assert torch.equal(embed.basis, before)
    assert weight.std().item() * 48**0.5 == pytest.approx(1, abs=0.1)
    assert isinstance(embed.proj, nn.Linear)


def test_autocast_does_not_round_the_coefficients():
    embed, images = fixed("dct"), torch.randn(2, 3, 16, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(embed.coefficients(images), fixed("dct").coefficients(images))
        assert embed(images).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"basis": "fourier"}, r"^basis=fourier is unknown: .*dct, hadamard"),
        ({"basis": "dct", "basis_dim": 49}, r"^basis_dim=49 must be from 1 to the 48 values .*3 channels of 4x4"),
        ({"basis": "dct", "basis_dim": 0}, r"^basis_dim=0"),
        ({"basis": "hadamard", "patch": [4, 6]}, r"hadamard .* powers of two, but patch=\[4,6\]"),
        ({"basis": "pca", "fit_images": 0}, r"^fit_images=0 must be at least 1"),
        ({"basis": "whitened", "eps": -1.0}, r"^fit_images=1024 must be at least 1, and eps=-1\.0 not negative"),
        ({"basis": "dct", "patch": 5}, "patch=5 does not cover"),
    ],
)
def test_a_basis_that_does_not_fit_the_patch_is_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        fixed(**knobs)
