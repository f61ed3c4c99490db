"""Images in class folders, laid out as ImageNet is: train/<class>/*.jpeg, val/<class>/*.jpeg."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from patchbench.data.source import Crop, held_out
from patchbench.layout import Size, size

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
LAYOUT = "expected train/<class>/<image> and val/<class>/<image> (test/<class>/<image> is optional)"


class ImageFolder:
    """Class folders under root/train and root/val; classes are numbered by name.

    With root/test, `val` chooses and `test` judges. Without, root/val is the test split, as ImageNet's is read in
    practice, and `val_size` of root/train is held out to choose by.
    Images are scaled so that the centre crop of `img_size` is `crop_pct` of the shorter side.
    FileNotFoundError, ValueError: no folder, no images, or other classes in one split than in another.
    """

    in_chans = 3
    mirrors = True

    def __init__(
        self,
        *,
        root: str,
        img_size: int | Sequence[int],
        crop_pct: float,
        val_size: int | float,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.root, self.img_size = Path(root).expanduser(), size("data.img_size", img_size)
        self.crop_pct, self.val_size, self.mean, self.std = crop_pct, val_size, mean, std
        classes = {name: class_names(self.root, name) for name in ("train", "val")}
        if (self.root / "test").is_dir():
            classes["test"] = class_names(self.root, "test")
        for name, found in classes.items():
            if odd := sorted(set(found) ^ set(classes["train"])):
                raise ValueError(
                    f"data.root={self.root}: train/ and {name}/ hold different classes, {', '.join(odd[:5])}"
                    f"{', ...' if len(odd) > 5 else ''} in one of them only: labels would not match; rename the folders"
                )
        self.classes = classes["train"]
        self.num_classes = len(self.classes)

    def splits(self) -> dict[str, "Files"]:
        found = {name: self.files(name) for name in ("train", "val", "test") if (self.root / name).is_dir()}
        if "test" not in found:
            train = found["train"]
            stay, out = held_out(train.labels.tolist(), self.val_size, "data.val_size")
            found = {"train": train.only(stay), "val": train.only(out), "test": found["val"]}
        return found

    def files(self, split: str) -> "Files":
        paths, labels = [], []
        for label, name in enumerate(self.classes):
            images = sorted(p for p in (self.root / split / name).rglob("*") if p.suffix.lower() in SUFFIXES)
            if not images:
                raise FileNotFoundError(
                    f"data.root={self.root}: no {'|'.join(sorted(SUFFIXES))} in {split}/{name}: fill or remove it"
                )
            paths += images
            labels += [label] * len(images)
        return Files(paths, torch.tensor(labels), self.img_size, self.crop_pct)


class Files:
    """A split as paths: decoded, scaled and cropped when asked for. ValueError names a file that does not decode."""

    slow = True
    crops = True

    def __init__(self, paths: list[Path], labels: Int[Tensor, " n"], img_size: Size, crop_pct: float) -> None:
        self.paths, self.labels, self.img_size, self.crop_pct = paths, labels, img_size, crop_pct
        self.crop = v2.CenterCrop(img_size)

    def __len__(self) -> int:
        return len(self.paths)

    def read(
        self, indices: Sequence[int], draws: Int[Tensor, " b"] | None = None, crop: Crop | None = None
    ) -> tuple[UInt8[Tensor, "b c H W"], Int[Tensor, " b"]]:
        return torch.stack([self.decoded(self.paths[i]) for i in indices]), self.labels[torch.as_tensor(indices)]

    def decoded(self, path: Path) -> UInt8[Tensor, "c H W"]:
        try:
            with Image.open(path) as file:
                height, width = self.scaled((file.height, file.width))
                file.draft("RGB", (width, height))  # a JPEG decodes at half or quarter size where that suffices
                image = v2.functional.pil_to_tensor(ImageOps.exif_transpose(file).convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} does not decode as an image: {error}") from error
        scaled = self.scaled(image.shape[1:])
        return self.crop(v2.functional.resize(image, scaled, v2.InterpolationMode.BICUBIC, antialias=True))

    def scaled(self, image_size: Sequence[int]) -> list[int]:
        """The image's height and width when the crop covers `crop_pct` of it, one side exactly, the other at most."""
        scale = max(crop / self.crop_pct / n for crop, n in zip(self.img_size, image_size, strict=True))
        return [max(crop, round(n * scale)) for crop, n in zip(self.img_size, image_size, strict=True)]

    def only(self, indices: Sequence[int]) -> "Files":
        return Files([self.paths[i] for i in indices], self.labels[list(indices)], self.img_size, self.crop_pct)


def class_names(root: Path, split: str) -> list[str]:
    folder = root / split
    names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if not names:
        raise FileNotFoundError(
            f"data.root={root}: no class folders in {split}/: {LAYOUT}; point data.root at the folder that holds them, "
            "unpack the set there, or use data=digits, which needs no files"
        )
    return names
