"""Images per second that one core reads from each kind of data set, and from torchvision's ImageFolder with PIL."""

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from patchbench.data.batches import IndexReader, Reader
from patchbench.data.cache_writer import prepare
from patchbench.data.diagnostics.squares import Quadrant
from patchbench.data.diagnostics.stream import Diagnostic
from patchbench.data.order import BatchIndices
from patchbench.data.sets.cached import Cached
from patchbench.data.sets.imagefolder import ImageFolder
from patchbench.data.source import InMemory, Split
from patchbench.machine import whole_file
from patchbench.runs.provenance import environment

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def photograph(height: int, width: int, rng: np.random.Generator) -> Image.Image:
    """Draw noise with the spectrum of natural scenes, amplitude 1/f (Field, 1987), and correlated channels."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = 1 / np.maximum(frequency, 1 / max(height, width))

    def plane() -> np.ndarray:
        noise = np.fft.irfft2(amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape)), (height, width))
        return noise / noise.std()

    grey = plane()
    pixels = np.stack([120 + 50 * (grey + 0.3 * plane()) for _ in range(3)], 2)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_folder(root: Path, options: Mapping[str, Any]) -> None:
    """Write JPEG files of three splits with two classes each; hard links multiply the images of the training split."""
    rng = np.random.default_rng(0)
    for split, count in {"train": options["images"], "val": 8, "test": 8}.items():
        for i in range(count):
            path = root / split / f"class{i % 2}" / f"{i:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            photograph(options["height"], options["width"], rng).save(path, quality=options["quality"])
            for copy in range(1, options["copies"] if split == "train" else 1):
                path.with_stem(f"{path.stem}-{copy}").hardlink_to(path)


def any_place(size: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a function that draws crops of `size` at random places."""

    def crop(draws: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        corner = (torch.rand(len(draws), 2) * (sizes - size + 1)).long()
        return torch.cat([corner, torch.full_like(corner, size)], 1)

    return crop


def any_size(draws: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Draw crops of 8 to 100 % of the area, with the aspect ratio of the image, at random places."""
    side = (torch.sqrt(0.08 + 0.92 * torch.rand(len(draws), 1)) * sizes).long()
    return torch.cat([(torch.rand(len(draws), 2) * (sizes - side + 1)).long(), side], 1)


def choices(count: int, batch_size: int) -> list[BatchIndices]:
    """Return the batches of an epoch in random order."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return [BatchIndices(part.tolist(), part) for part in order.split(batch_size)]


def bench(options: Mapping[str, Any]) -> None:
    """Measure all ways of reading, write the table as JSON, and print it. options: see scripts/bench_data.py."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        table = measure(Path(folder), options)
    report(table, options)


def measure(root: Path, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the images per second of every way of reading: of the fastest round, with all ways in turn in each round.

    root: an empty folder. Keys: rung, the name of the way; per, `core` for the CPU time of one core, `loader` for the
    wall time of a DataLoader with `workers` processes; images_per_s.
    """
    jpegs = root / "jpegs"
    make_folder(jpegs, options)
    size, cache_size, batch_size, workers = (options[name] for name in ("size", "cache", "batch", "workers"))
    folder: Any = {"root": str(jpegs), "val_size": 0.1, "mean": MEAN, "std": STD, "mirrors": True, "on_error": "raise"}
    folder |= {"train_fraction": None, "train_size": None, "channels": 3, "range": None, "classes": None}
    folder |= {"max_skipped": 0.01, "max_decoded": None}
    whole: Any = ImageFolder(img_size=cache_size, crop_pct=1.0, **folder)
    prepare(whole, root / "cache", made_from={}, command="", workers=0)
    all_of_it: Any = {"train_fraction": None, "train_size": None, "normalise": "source", "mean": None, "std": None}
    all_of_it |= {"range": None, "classes": None}
    cut: Any = Cached(root=str(root / "cache"), img_size=size, **all_of_it)
    cache = cut.splits()["train"]
    files = ImageFolder(img_size=size, crop_pct=0.875, **folder).splits()["train"]
    prepare(cut, root / "exact", made_from={}, command="", workers=0)
    mapped = Cached(root=str(root / "exact"), img_size=size, **all_of_it).splits()["train"]
    quadrant, sizes = Quadrant(cell=4, contrast=16.0, noise=16.0), {"train_size": 4000, "val_size": 1, "test_size": 1}
    scenes = Diagnostic(scene=quadrant, unit=0.5, img_size=24, eval_seed=0, **sizes).splits()["train"]
    memory = InMemory(*mapped.read(range(len(mapped))))
    chosen = choices(len(files), batch_size)
    some = chosen[: max(1, len(chosen) // options["copies"])]  # fewer batches, for the slow ways of reading

    to_floats = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    training = transforms.Compose([transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), *to_floats])
    seeing = transforms.Compose([transforms.Resize(round(size / 0.875)), transforms.CenterCrop(size), *to_floats])

    def torchvision_folder(transform: Callable[[Image.Image], torch.Tensor]) -> datasets.ImageFolder:
        return datasets.ImageFolder(str(jpegs / "train"), transform)

    def by_one(dataset: datasets.ImageFolder) -> Iterable[torch.Tensor]:
        return (torch.stack([dataset[i][0] for i in part.indices]) for part in some)

    def read(split: Split, crop: Callable | None = None, parts: list[BatchIndices] = chosen) -> Iterable[torch.Tensor]:
        return (split.read(part.indices, part.draws, crop)[0] for part in parts)

    def loaded(dataset: Any, **how: Any) -> Callable[[], Iterable[Any]]:
        loader = DataLoader(dataset, num_workers=workers, persistent_workers=workers > 0, **how)
        return lambda: (images for images, *_ in loader)

    rungs: dict[str, tuple[str, Callable[[], Iterable[Any]]]] = {
        "ImageFolder + PIL, RandomResizedCrop": ("core", lambda: by_one(torchvision_folder(training))),
        "ImageFolder + PIL, Resize + CenterCrop": ("core", lambda: by_one(torchvision_folder(seeing))),
        "data=imagefolder, centre crop": ("core", lambda: read(files, parts=some)),
        "data=imagefolder, crop of any size": ("core", lambda: read(files, any_size, some)),
        f"data=cached of {options['cache']}, centre crop": ("core", lambda: read(cache)),
        f"data=cached of {options['cache']}, crop of {size} anywhere": ("core", lambda: read(cache, any_place(size))),
        f"data=cached of {options['cache']}, crop of any size": ("core", lambda: read(cache, any_size)),
        f"data=cached of {size}, no crop": ("core", lambda: read(mapped)),
        "in memory, gathered": ("core", lambda: read(memory)),
        "data=quadrant, generated at 24 pixels": ("core", lambda: read(scenes, parts=some)),
        "resident: indices for the device": ("core", lambda: [IndexReader("train")[part].indices for part in chosen]),
        "loader of ImageFolder + PIL, RandomResizedCrop": (
            "loader",
            loaded(
                torchvision_folder(training), batch_size=batch_size, sampler=[i for part in some for i in part.indices]
            ),
        ),
        "loader of data=imagefolder, centre crop": (
            "loader",
            loaded(Reader(files, None), batch_size=None, sampler=some),
        ),
        f"loader of data=cached of {options['cache']}, crop of {size} anywhere": (
            "loader",
            loaded(Reader(cache, any_place(size)), batch_size=None, sampler=chosen),
        ),
    }
    best = dict.fromkeys(rungs, 0.0)
    for _ in range(options["rounds"]):
        for name, (kind, rung) in rungs.items():
            clock = time.process_time if kind == "core" else time.perf_counter
            start = clock()
            count = sum(len(batch) for batch in rung())
            best[name] = max(best[name], count / (clock() - start))
    return [{"rung": name, "per": rungs[name][0], "images_per_s": rate} for name, rate in best.items()]


def report(table: list[dict[str, Any]], options: Mapping[str, Any]) -> None:
    """Write the table, the settings and the environment as JSON to a file, and print the table as Markdown."""
    plain = table[0]["images_per_s"]
    jpeg = next(row["images_per_s"] for row in table if row["rung"].startswith("data=imagefolder"))
    settings = {name: value for name, value in options.items() if name != "out"}
    with whole_file(options["out"]) as file:
        file.write(json.dumps({"settings": settings, "rungs": table, "environment": environment()}, indent=2) + "\n")
    print("| images/s | of one core | times ImageFolder + PIL | times data=imagefolder |\n|---|---:|---:|---:|")
    for row in table:
        if row["per"] == "core":
            rate = row["images_per_s"]
            print(f"| {row['rung']} | {rate:,.0f} | {rate / plain:,.1f} | {rate / jpeg:,.1f} |")
    print(f"\n| images/s | to the training process, from {options['workers']} worker(s) |\n|---|---:|")
    for row in table:
        if row["per"] == "loader":
            print(f"| {row['rung'].removeprefix('loader of ')} | {row['images_per_s']:,.0f} |")
