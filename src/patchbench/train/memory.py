"""The memory of a training step: refuse a network that does not fit, or split the batch into micro-batches that fit."""

import gc
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities import rank_zero_only

from patchbench.checks import Size, spell
from patchbench.nets.cost import Cost
from patchbench.nets.memory import Memory
from patchbench.track.device import GIB, free_memory

VIT_B16_GMACS = 17.56  # at 224 pixels
SLACK = 1.2  # bytes that the allocator reserves per byte of tensors


def rounded(number: float) -> str:
    """Spell a number with two digits at least: 1,234, 12, 1.2, 0.057."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def refuse_too_costly(
    costs: Cost,
    memory: Memory,
    *,
    images: int,
    free: int,
    device: str,
    max_gmacs: float,
    img_size: Size,
    reads_patch: bool,
) -> None:
    """Raise ValueError, with cures, if `images` at a time do not fit into `free` bytes, or cost more than `max_gmacs`.

    costs, memory: estimates for the network. device: name of the device. reads_patch: the network reads `patch`.
    """
    gmacs, needed = costs.macs / 1e9, SLACK * memory.step(images)
    too_slow, too_large = gmacs > max_gmacs, needed > free
    if not (too_slow or too_large):
        return
    image = "an image takes" if costs.num_tokens is None else f"{costs.num_tokens:,} tokens an image take"
    problem, cures, split = f"{image} {gmacs:,.3g} GMACs", [], ""
    if too_slow:
        texts = [rounded(gmacs), *(f"{gmacs:,.{digits}f}" for digits in range(1, 18))]
        shown = next(text for text in texts if float(text.replace(",", "")) > max_gmacs)
        problem = f"{image} {shown} GMACs, more than max_gmacs={max_gmacs:g} and "
        problem += f"{rounded(gmacs / VIT_B16_GMACS)} times those of ViT-B/16 at 224 pixels"
    if too_large:
        problem += (
            f"; {images} at a time need about {needed / GIB:,.3g} GiB ({memory.weights / GIB:.2g} for weights, "
            f"gradients and optimizer, {memory.per_image / GIB:,.2g} an image), and the {device} "
            f"has {free / GIB:,.3g} GiB free"
        )
        fewer = next((n for n in range(images - 1, 0, -1) if images % n == 0 and SLACK * memory.step(n) <= free), None)
        split = f"trainer.micro_batch={fewer}" if fewer else ""
    if memory.bias:
        problem += f"; their attention bias alone takes {memory.bias / GIB:,.2g} GiB for each image in each layer"
    if split and not too_slow:
        cures.append(split)
    cures.append(f"a data.img_size smaller than {spell(img_size)}")
    if costs.num_tokens is not None:
        cures.append(
            "a larger patch" if reads_patch else "embed=overlap_stack (windows overlap, tokens are those of patch)"
        )
    cures.append("a smaller model")
    anyway = f"allow_cost=true{f' {split}' if split and too_slow else ''} to train it all the same"
    raise ValueError(f"{problem}: use {', '.join(cures)}, or {anyway}")


def accumulation(
    *, accumulate: int, micro_batch: int | Literal["auto"] | None, batch_size: int, world_size: int
) -> int:
    """Return the number of micro-batches per optimizer step. ValueError if micro_batch does not divide the batch.

    With micro_batch="auto" the number is `accumulate`; MicroBatches sets it before training.
    """
    if not isinstance(micro_batch, int):
        return accumulate
    each, rest = divmod(batch_size, world_size)
    if rest or each % micro_batch:
        cure = "|".join(str(n) for n in range(1, each + 1) if each % n == 0)
        raise ValueError(
            f"trainer.micro_batch={micro_batch} does not divide the {each} images that batch_size={batch_size} gives "
            f"each of {world_size} device(s): use trainer.micro_batch={cure}"
        )
    return each // micro_batch


class MicroBatches(pl.Callback):
    """Split the batch before training until a micro-batch fits on every device, with trainer.micro_batch=auto.

    The first attempt is the whole batch on a GPU, and on a CPU the number of images that the estimate allows, since the
    system kills a process that takes too much memory. An attempt is a forward and a backward pass without an update;
    the number of images is halved while a rank runs out of memory. A checkpoint stores the number of micro-batches,
    since they are the unit of its position in the data.
    """

    def __init__(self, auto: bool, memory: Memory, *, batch_size: int, in_chans: int, img_size: Size) -> None:
        self.auto, self.needs, self.batch_size, self.shape = auto, memory, batch_size, (in_chans, *img_size)
        self.accumulate = 1

    @property
    def state_key(self) -> str:
        return "MicroBatches"

    def state_dict(self) -> dict[str, Any]:
        return {"accumulate": self.accumulate}

    def on_fit_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.find_accumulation(trainer, task)

    def find_accumulation(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Find and set the number of micro-batches, unless it is known."""
        if self.auto:
            each = self.batch_size // trainer.world_size
            sizes = [n for n in range(each, 0, -1) if each % n == 0]
            images = sizes[0]
            device = trainer.strategy.root_device
            if device.type == "cpu":
                free = free_memory(device, trainer.num_devices)
                images = next((n for n in sizes if SLACK * self.needs.step(n) <= free), 1)
            while not self.fits_everywhere(trainer, task, images):
                if images == 1:
                    raise torch.OutOfMemoryError(
                        "trainer.micro_batch=auto: not one image at a time fits: use a smaller data.img_size or model"
                    )
                images = next(n for n in sizes if n <= images // 2)
            trainer.accumulate_grad_batches = each // images
            if images < each:
                torch.compiler.reset()  # else blocks stay compiled for several batch sizes
                announce(f"trainer.micro_batch=auto: {each // images} micro-batches of {images} images a step")
            self.auto = False
        self.accumulate = trainer.accumulate_grad_batches

    def fits_everywhere(self, trainer: pl.Trainer, task: pl.LightningModule, images: int) -> bool:
        """True if a micro-batch fits on every rank."""
        fit = torch.tensor(int(self.fits(trainer, task, images)), device=trainer.strategy.root_device)
        gc.collect()
        if fit.is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_accumulated_memory_stats(fit.device)  # so that a failed attempt is not counted as a retry
        return bool(trainer.strategy.reduce(fit, reduce_op="min") if trainer.world_size > 1 else fit)

    def fits(self, trainer: pl.Trainer, task: Any, images: int) -> bool:
        """True if a forward and a backward pass with `images` images fit on this device."""
        parameters = [p for p in task.net.parameters() if p.requires_grad]
        before = [buffer.clone() for buffer in task.net.buffers()]  # restored below, such as running averages
        device = trainer.strategy.root_device
        try:
            averages = [torch.empty_like(p) for p in parameters for _ in range(2)]  # as AdamW has
            if device.type == "cuda":  # 5 % for further tensors of training, and for fragmentation
                allowed = torch.cuda.mem_get_info(device)[1] * torch.cuda.get_per_process_memory_fraction(device)
                averages.append(torch.empty(int(allowed / 20), dtype=torch.uint8, device=device))
            with trainer.precision_plugin.forward_context():
                logits = task.net(torch.zeros(images, *self.shape, device=device))
                loss = F.cross_entropy(logits, torch.zeros(images, dtype=torch.int64, device=device))
            torch.autograd.grad(loss, parameters, allow_unused=True)
            del averages
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                return False
            raise
        finally:
            for buffer, value in zip(task.net.buffers(), before, strict=True):
                buffer.copy_(value)
        return True


@rank_zero_only
def announce(line: str) -> None:
    print(line, flush=True)
