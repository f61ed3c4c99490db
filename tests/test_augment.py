"""Each training image is augmented by its own draw, as in torchvision and timm; evaluation changes no image."""

import random
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import ks_2samp, kstest
from support import configure, options, some, task_for, train_in
from timm.data import auto_augment
from timm.data.mixup import mixup_target
from torchvision.transforms import v2

from patchbench.commands.build import build_augment, build_source
from patchbench.data.augment import randaugment
from patchbench.data.augment.chain import Augment
from patchbench.data.augment.crop import crop_boxes, shift_images
from patchbench.data.augment.three import gaussian_blur
from patchbench.data.batches import Batches, Reader
from patchbench.data.draws import Purpose, normal, train_draws
from patchbench.data.order import BatchIndices

SIZE = (24, 32)


def augment(name: str, *overrides: str, data: str = "random", size: str = "[24,32]") -> Augment:
    cfg = configure(f"data={data}", f"data.img_size={size}", f"augment={name}", *overrides)
    return build_augment(cfg, build_source(cfg))


def draws(count: int, epoch: int = 0) -> torch.Tensor:
    return train_draws(0, epoch, torch.arange(count))


def photos(count: int, size: tuple[int, int] = SIZE, chans: int = 3) -> torch.Tensor:
    """Make smooth images with dark and bright parts in every channel."""
    noise = torch.rand(count, chans, 4, 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise * 300 - 20, size, mode="bicubic").clamp(0, 255).to(torch.uint8)


def shown(augment: Augment, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Apply all augmentation except mixing."""
    return augment.erase(augment.images(images, draws, cropped=False) / 64 - 2, draws)


NAMES = options("augment")
CHANGING = [name for name in NAMES if name != "none"]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_augmented_alike_in_whatever_batch_it_comes(name):
    images, chain = photos(40), augment(name)
    together = shown(chain, images, draws(40))
    assert torch.equal(
        together, torch.cat([shown(chain, i, d) for i, d in zip(images.split(7), draws(40).split(7), strict=True)])
    )
    order = torch.randperm(40)
    assert torch.equal(together[order], shown(chain, images[order], draws(40)[order]))
    assert torch.equal(together, shown(chain, images, draws(40)))


@pytest.mark.parametrize("name", CHANGING)
def test_equal_images_of_a_batch_are_augmented_differently_and_again_in_the_next_epoch(name):
    images, chain = photos(1).expand(60, -1, -1, -1), augment(name)
    first = shown(chain, images, draws(60))
    assert len(first.flatten(1).unique(dim=0)) > 20
    assert not torch.equal(first, shown(chain, images, draws(60, epoch=1)))


def test_none_changes_nothing():
    chain, images, labels = augment("none"), photos(5), torch.arange(5)
    assert not chain.active
    assert chain.crop is None
    assert torch.equal(chain.images(images, draws(5), cropped=False), images)
    same = chain.mixed(images / 255, labels, draws(5))
    assert torch.equal(same[0], images / 255)
    assert torch.equal(same[1], labels)


def test_only_what_may_be_mirrored_is():
    digits, random_pixels = augment("light", data="digits"), augment("light")
    assert (digits.hflip, random_pixels.hflip) == (0, 0.5)
    assert augment("light", "augment.hflip=1.0", data="digits").hflip == 1
    images = torch.arange(32, dtype=torch.uint8).expand(200, 3, 24, 32).contiguous()
    for chain, share in ((digits, 0), (random_pixels, 0.5)):
        for cropped in (False, True):
            rising = (
                chain.images(images, draws(200), cropped=cropped)[:, 0, 12, 8:24]
                .int()
                .diff()
                .mean(1, dtype=torch.float)
            )
            assert set(rising.tolist()) <= {-1.0, 1.0}
            assert abs((rising < 0).float().mean() - share) < 0.1


@pytest.mark.parametrize("size", [(200, 300), (64, 64), (40, 400)])
def test_crops_are_distributed_as_those_of_torchvision(size):
    crop, count = augment("deit").crop, 3000
    boxes = crop(draws(count), torch.tensor(size).expand(count, 2))
    top, left, height, width = boxes.T
    assert (boxes >= 0).all()
    assert (top + height <= size[0]).all()
    assert (left + width <= size[1]).all()
    torch.manual_seed(0)
    image, theirs = torch.empty(3, *size), v2.RandomResizedCrop(8, (0.08, 1.0), (0.75, 1.3333))
    params = [theirs.make_params([image]) for _ in range(count)]
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in params])
    for of in (lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2], lambda b: b[:, 0], lambda b: b[:, 1]):
        assert ks_2samp(of(boxes), of(theirs)).pvalue > 0.005


def test_a_padded_crop_of_a_file_has_the_shape_of_the_network_and_lies_inside():
    crop = augment("light").crop
    sizes = torch.tensor([[24, 32], [500, 100], [100, 500], [1, 1]]).repeat(100, 1)
    top, left, height, width = crop(draws(400), sizes).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= sizes[:, 0]).all()
    assert (left + width <= sizes[:, 1]).all()
    large = sizes.amin(1) > 50
    torch.testing.assert_close((height / width)[large], torch.full((200,), 24 / 32), atol=0.02, rtol=0)


@pytest.mark.parametrize(("fill", "mode"), [("zeros", "constant"), ("reflect", "reflect")])
def test_a_moved_image_is_a_crop_of_the_padded_one(fill, mode):
    images, pad = photos(50), 4
    shift, flips = torch.randint(-pad, pad + 1, (50, 2)), torch.rand(50) < 0.5
    padded = v2.functional.pad(images, [pad], padding_mode=mode)
    for image, (down, right), flip, got in zip(
        padded, shift, flips, shift_images(images, shift, flips, fill), strict=True
    ):
        expected = image[:, pad + down : pad + down + SIZE[0], pad + right : pad + right + SIZE[1]]
        assert torch.equal(got, expected.flip(2) if flip else expected)


def test_a_box_is_cut_as_torchvision_resizes_it():
    images = photos(30)
    boxes = torch.stack(
        [torch.arange(30) % 8, torch.arange(30) % 5, 8 + torch.arange(30) % 8, 12 + torch.arange(30) % 9], 1
    )
    for image, box, got in zip(images, boxes.tolist(), crop_boxes(images, boxes, torch.zeros(30).bool()), strict=True):
        expected = v2.functional.resized_crop(image.float(), *box, list(SIZE), antialias=False)
        inner = (got - expected)[:, 3:-3, 3:-3].abs()  # at the edge we read on where the image goes on
        assert inner.max() <= 1
    whole = torch.tensor([0, 0, *SIZE]).expand(30, 4)
    assert torch.equal(crop_boxes(images, whole, torch.zeros(30).bool()), images)
    assert torch.equal(crop_boxes(images, whole, torch.ones(30).bool()), images.flip(3))


def timm_level(name: str, level: float, sign: int) -> tuple:
    """Return timm's argument of an operation, with the given sign if timm draws the sign at random."""
    to_argument = auto_augment.LEVEL_TO_ARG[name]
    if to_argument is None:
        return ()
    for seed in range(30):
        random.seed(seed)
        argument = to_argument(level, {})
        neutral = 1 if name in randaugment.COLOURS else 0
        if name not in (*randaugment.GEOMETRY, *randaugment.COLOURS) or (argument[0] - neutral) * sign >= 0:
            return argument
    raise AssertionError(name)


def test_operations_are_those_of_timm():
    assert set(randaugment.OPERATIONS) == set(auto_augment.rand_augment_choices("", increasing=True))


@pytest.mark.parametrize("chans", [1, 3])
@pytest.mark.parametrize("name", randaugment.OPERATIONS)
def test_operations_on_groups_give_what_timm_gives_image_by_image(name, chans):
    images = photos(12, (40, 56), chans)
    levels = torch.tensor([0.0, 2.0, 5.0, 8.6, 9.3, 10.0, 0.4, 3.0, 6.0, 7.0, 9.0, 10.0])
    signs = torch.tensor([1, -1]).repeat_interleave(6)
    # Half of the batch is left alone: the group is gathered and put back.
    kinds = torch.where(torch.arange(12) % 3 == 0, -1, randaugment.OPERATIONS.index(name))
    mean = [0.5, 0.25, 0.75][:chans]
    done = randaugment.apply_operations(images, kinds, levels / 10 * signs, mean)
    for i, image in enumerate(images):
        if kinds[i] < 0:
            assert torch.equal(done[i], image)
            continue
        picture = v2.functional.to_pil_image(image)
        fill = tuple(round(255 * m) for m in mean) if chans == 3 else round(255 * mean[0])
        knobs = {"fillcolor": fill, "resample": Image.Resampling.BILINEAR} if name in randaugment.GEOMETRY else {}
        arguments = timm_level(name, float(levels[i]), int(signs[i]))
        if name == "PosterizeIncreasing":
            arguments = (max(1, arguments[0]),)
        expected = v2.functional.pil_to_tensor(auto_augment.NAME_TO_OP[name](picture, *arguments, **knobs))
        apart = (done[i].int() - expected.int()).abs()
        if name in randaugment.GEOMETRY:  # Pillow does not blend the image into its outside
            assert (apart > 2).float().mean() < 0.08
        else:
            assert apart.max() <= 1


def test_each_operation_of_randaugment_comes_equally_often():
    chain = augment("none", "augment.randaugment={prob: 0.5, num_ops: 1}")
    flat = torch.full((6000, 3, 4, 4), 100, dtype=torch.uint8)
    unchanged = (chain.randaugment(flat, draws(6000), [0.0] * 3) == flat).flatten(1).all(1).float().mean()
    # A flat picture stays in half of the cases, and under the operations that find nothing to change in it.
    assert 0.5 < unchanged < 0.85
    assert augment("none", "augment.randaugment.prob=1.0").active


def test_blurring_is_that_of_torchvision():
    images, sigmas = photos(20), torch.linspace(0.1, 2.0, 20)
    done = gaussian_blur(images, sigmas)
    for image, sigma, got in zip(images, sigmas.tolist(), done, strict=True):
        expected = v2.functional.gaussian_blur(image, [13, 13], [sigma, sigma])
        assert (got.int() - expected.int())[:, 6:-6, 6:-6].abs().max() <= 1


def test_three_augment_does_each_of_three_to_a_third():
    chain, images = augment("none", "augment.three.prob=1.0"), photos(900)
    done = chain.three(images, draws(900))
    grey = (done == done[:, :1]).flatten(1).all(1)
    solar = (done == v2.functional.solarize(images, 128)).flatten(1).all(1)
    for share in (grey, solar, ~grey & ~solar):
        assert abs(share.float().mean() - 1 / 3) < 0.06


def test_jitter_draws_each_factor_within_its_bounds():
    chain = augment("none", "augment.jitter.strength=0.3")
    flat = torch.full((2000, 3, 4, 4), 100, dtype=torch.uint8)
    done = chain.jitter(flat, draws(2000))[:, 0, 0, 0].float()  # contrast and saturation leave a flat grey alone
    assert kstest((done - 69.5) / 60, "uniform").pvalue > 0.001
    assert (done >= 68).all()
    assert (done <= 130).all()


def test_erasing_spares_most_images_and_takes_rectangles_of_noise_from_the_others():
    chain, images = augment("deit"), torch.full((4000, 1, 24, 32), 9.0)
    gone = (chain.erase(images, draws(4000)) != 9)[:, 0]
    erased = gone.flatten(1).any(1)
    assert abs(erased.float().mean() - 0.25) < 0.03
    share = gone[erased].float().mean((1, 2))
    assert share.min() >= 0.015
    assert share.max() <= 0.36
    assert abs(share.mean() - (0.02 + 1 / 3) / 2) < 0.02
    for mask in gone[erased][:50]:
        rows, cols = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & cols[None, :]), "a rectangle"
        assert rows.int().diff().abs().sum() <= 2
    noise = normal(draws(50), 400, Purpose.ERASE_NOISE)
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 0.01
    assert torch.equal(normal(draws(50)[10:12], 37, Purpose.ERASE_NOISE), noise[10:12, :37])


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_soft_labels_are_the_shares_of_the_pixels(count):
    labels = torch.arange(count)
    images = torch.nn.functional.one_hot(labels, 100).float()[:, :, None, None].expand(-1, -1, *SIZE).contiguous()
    for knobs in ("{mixup: 0.8, cutmix: 1.0}", "{mixup: 0.8}", "{cutmix: 1.0}"):
        chain = augment("none", f"augment.mix={knobs}", "data.num_classes=100")
        mixed, soft = chain.mixed(images, labels, draws(count))
        assert soft.shape == (count, 100)
        torch.testing.assert_close(soft.sum(1), torch.ones(count))
        torch.testing.assert_close(mixed.mean((2, 3)), soft, atol=1e-5, rtol=0)
        again = chain.mixed(images, labels, draws(count))
        assert torch.equal(mixed, again[0])
        if count > 7:
            own = soft[torch.arange(count), labels]
            assert own.std() > 0.1, "each image has its own share"
            cut_in = ((mixed == 0) | (mixed == 1)).flatten(1).all(1).float().mean()
            low, high = {"{mixup: 0.8}": (0, 0.1), "{cutmix: 1.0}": (1, 1)}.get(knobs, (0.3, 0.7))
            assert low <= cut_in <= high


def test_shares_follow_their_beta_distribution():
    for knob, alpha in {"mixup": 0.8, "cutmix": 1.0}.items():
        mix = augment("none", f"augment.mix.{knob}={alpha}").mix
        kept, boxes = mix.shares(draws(200_000), (1000, 1000))
        if knob == "mixup":
            assert kstest(kept.numpy(), "beta", (alpha, alpha)).pvalue > 0.01
            assert not boxes.any()
        else:
            assert (boxes >= 0).all()
            assert ((boxes[:, :2] + boxes[:, 2:]) <= 1000).all()
            assert (kept == 1).all()


def test_label_smoothing_of_soft_labels_is_that_of_timm():
    logits, labels, share = torch.randn(6, 10), torch.arange(6), 0.3
    ours = F.cross_entropy(logits, mixup_target(labels, 10, share), label_smoothing=0.1)
    theirs = -(mixup_target(labels, 10, share, 0.1) * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["augment.hflip=1.5"], "augment.hflip=1.5 must be between 0 and 1"),
        (["augment.repeats=0"], "augment.repeats=0 must be at least 1"),
        (["data.in_chans=5"], "augment.randaugment.prob=0.5 changes colours or greys, and the images have 5 channels"),
        (
            ["augment.crop.scale=[0.5,2.0]"],
            "augment.crop.scale=[0.5, 2.0] must be two numbers above 0 and none above 1",
        ),
        (["augment.randaugment.magnitude=11.0"], "augment.randaugment.magnitude=11.0 must be between 0 and 10"),
        (["augment.mix.mixup=-1.0"], "augment.mix.mixup=-1.0 must not be negative"),
    ],
)
def test_what_cannot_be_is_refused_by_name(overrides, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        augment("deit", *overrides)


def test_what_changes_no_colours_takes_any_number_of_channels():
    chain = augment("light", "data.in_chans=5", "augment.mix.cutmix=1.0", "augment.erase.prob=1.0")
    images = torch.randint(256, (6, 5, *SIZE), dtype=torch.uint8)
    mixed, soft = chain.mixed(chain.images(images, draws(6), cropped=False) / 255, torch.arange(6), draws(6))
    assert mixed.shape == images.shape
    assert soft.shape == (6, 1000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in {"train": 12, "val": 4}.items():
        for name in ("ant", "bee"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i, pixels in enumerate(photos(count, (30 + len(name), 40))):
                Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "set" / split / name / f"{i}.png")
    return tmp_path / "set"


@pytest.mark.parametrize("data", some(["digits", "grey", "folder"], "folder"))
@pytest.mark.parametrize("name", NAMES)
def test_every_option_trains(name, data, tmp_path, folder):
    arguments = {
        "digits": ["data=digits"],
        "grey": ["data=random", "data.in_chans=1", "data.num_classes=10"],
        "folder": ["data=imagefolder", f"data.root={folder}", "data.val_size=4", "workers=2"],
    }[data]
    cfg = configure(
        "model=micro", *arguments, "data.img_size=16", "patch=4", "epochs=1", "batch_size=9", "limit_batches=2",
        "log_every=1", f"augment={name}", "trainer=cpu", "logger=none",
    )  # fmt: skip
    train_in(cfg, tmp_path / "run")
    assert (tmp_path / "run" / "run.json").exists()


def test_evaluation_sees_the_images_as_they_are():
    cfg = configure("data=digits", "augment=deit", "data.img_size=16")
    source = build_source(cfg)
    data = Batches(source, build_augment(cfg, source), batch_size=8, seed=0, workers=0, limit=None, resident_bytes=0)
    data.setup("fit")
    for split in data.splits.values():
        images, labels = split.read(range(8))
        seen, said = data.on_after_batch_transfer(Reader(split, data.augment.crop)[BatchIndices(list(range(8)))], 0)
        assert torch.equal(seen, data.normalised(images))
        assert torch.equal(said, labels)
    trained, soft = data.on_after_batch_transfer(
        Reader(data.splits["train"], data.augment.crop)[BatchIndices(list(range(8)), draws(8))], 0
    )
    assert trained.shape == seen.shape
    assert soft.shape == (8, 10)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_hit_in_training_is_what_an_image_is_most(precision):
    def step(labels: torch.Tensor) -> dict[str, torch.Tensor]:
        task = task_for(torch.nn.Flatten(), 3, 1, "optim.label_smoothing=0.0", "optim.clip_grad=null")
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            return task.training_step([images.to(precision), labels], 0)

    images = torch.tensor([[5.0, 0, 1], [0, 3, 2], [1, 2, 4]])[:, :, None, None]
    hard, mixed = step(torch.tensor([0, 2, 2])), step(torch.tensor([[0.8, 0.2, 0], [0, 0.6, 0.4], [0.9, 0, 0.1]]))
    assert hard["hits"] == 2
    assert mixed["hits"] == 2
    torch.testing.assert_close(hard["loss"], step(torch.eye(3)[[0, 2, 2]])["loss"], atol=1e-2, rtol=0)
