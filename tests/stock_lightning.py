"""Lightning's own Trainer under the same faults: its ModelCheckpoint and the recipe of its documentation, no more.

python tests/stock_lightning.py trials     prints a table; make faults appends it to benchmarks/faults.md

The network, the images and the options are those of tests/test_faults.py.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
OPTIONS = ("model=micro", "data.img_size=16", "patch=4", "model.drop_path=0.5", "trainer=cpu")
BATCHES, EPOCHS = 8, 6


def fit(folder: Path, poisoned: int) -> None:
    """Train, or resume from last.ckpt. poisoned: step with a NaN gradient, -1 for none."""
    import pytorch_lightning as pl
    import torch.nn.functional as F
    from pytorch_lightning.callbacks import ModelCheckpoint
    from torch.utils.data import DataLoader, TensorDataset

    from patchbench.commands.build import build_net, build_source
    from patchbench.config.compose import composed, register_options
    from patchbench.config.names import register

    class Plain(pl.LightningModule):
        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", F.cross_entropy(self.net(batch[0]), batch[1]))

        def on_before_optimizer_step(self, optimizer):
            if self.global_step == poisoned:
                self.net.head.weight.grad.fill_(float("nan"))

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=5e-4)

    register_options()
    register()
    pl.seed_everything(0)
    cfg = composed(OPTIONS)
    source = build_source(cfg)
    splits = source.splits()
    loaders = [
        DataLoader(TensorDataset(s.images.float() / 255, s.labels), batch_size=32, shuffle=shuffle)
        for s, shuffle in ((splits["train"], True), (splits["val"], False))
    ]
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        limit_train_batches=BATCHES,
        limit_val_batches=BATCHES,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[ModelCheckpoint(folder, save_last=True, every_n_train_steps=2)],
    )
    last = folder / "last.ckpt"
    trainer.fit(Plain(build_net(cfg, source)), *loaders, ckpt_path=last if last.exists() else None)
    torch.save(trainer.model.state_dict(), folder / "trained.pt")


def start(folder: Path, poisoned: int = -1) -> subprocess.Popen:
    line = [sys.executable, __file__, "fit", str(folder), str(poisoned)]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until_saved(process: subprocess.Popen, folder: Path) -> None:
    while not (folder / "last.ckpt").exists() and process.poll() is None:
        time.sleep(0.01)


def ended_and_completed(folder: Path, seconds: float, number: int, expected: dict) -> bool:
    """End a training by a signal, some seconds after its first checkpoint, and resume: true for equal weights."""
    process = start(folder)
    until_saved(process, folder)
    time.sleep(seconds)
    process.send_signal(number)
    process.wait()
    return start(folder).wait() == 0 and same(torch.load(folder / "trained.pt"), expected)


def killed(folder: Path, chance: random.Random, expected: dict) -> bool:
    """SIGKILL at a random moment after the first checkpoint: the same weights in the end."""
    return ended_and_completed(folder, chance.uniform(0, 1), signal.SIGKILL, expected)


def flipped(folder: Path, chance: random.Random, expected: dict) -> bool:
    """A bit of last.ckpt flips: it is not loaded."""
    from lab import flip

    process = start(folder)
    until_saved(process, folder)
    process.kill()
    process.wait()
    path = folder / "last.ckpt"
    before = torch.load(path, weights_only=True)["state_dict"]
    flip(path, chance)
    try:
        after = torch.load(path, weights_only=True)["state_dict"]
    except Exception:
        return True
    return same(after, before)


def signalled(folder: Path, chance: random.Random, expected: dict) -> bool:
    """SIGTERM at a random moment after the first checkpoint: the same weights in the end."""
    return ended_and_completed(folder, chance.uniform(0, 0.5), signal.SIGTERM, expected)


def poisoned(folder: Path, chance: random.Random, expected: dict) -> bool:
    """A gradient that is NaN: no checkpoint holds NaN."""
    start(folder, poisoned=chance.randrange(4, BATCHES * EPOCHS)).wait()
    saved = [torch.load(path, weights_only=True)["state_dict"] for path in folder.glob("*.ckpt")]
    return all(value.isfinite().all() for state in saved for value in state.values() if value.is_floating_point())


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def main(trials: int) -> None:
    print("\nLightning's Trainer and ModelCheckpoint alone:\n")
    print("| fault | asked of it | trials | passed |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as whole:
        assert start(Path(whole)).wait() == 0
        expected = torch.load(Path(whole, "trained.pt"))
    for trial in (killed, flipped, signalled, poisoned):
        passed = 0
        for number in range(trials):
            with tempfile.TemporaryDirectory() as folder:
                passed += trial(Path(folder), random.Random(number), expected)
        print(f"| {trial.__name__} | {trial.__doc__.rstrip('.')} | {trials} | {passed} |", flush=True)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "tests")]
    os.environ["OMP_NUM_THREADS"] = "1"
    if sys.argv[1] == "fit":
        fit(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(int(sys.argv[1]))
