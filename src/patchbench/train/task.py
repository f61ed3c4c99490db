"""Supervised image classification."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from timm.optim import Muon
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from patchbench.data.source import Batch
from patchbench.track.finite import FiniteSteps, NonFinite
from patchbench.train.groups import parameter_groups
from patchbench.train.shard import shard

Loss = Literal["cross_entropy", "bce"]


class Classify(pl.LightningModule):
    """Train `net` to classify images, and measure its accuracy.

    optimizer: builds the optimizer from parameter groups. schedule: builds the schedule from the optimizer and the
    number of steps. loss, label_smoothing, target_threshold: see `loss_of`. nonfinite: see `FiniteSteps`. total_steps:
    returns the number of steps, once the data are read.
    origin: the configuration as plain values, enough to build the network and its data again; every checkpoint contains
    it.
    A training step returns its `loss`, and for callbacks `batch_loss`, without its gradient and whatever the number of
    micro-batches, and `hits`, the number of images that were classified rightly.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        *,
        num_classes: int,
        loss: Loss,
        label_smoothing: float,
        target_threshold: float | None,
        clip_grad: float | None,
        nonfinite: NonFinite,
        seed: int,
        total_steps: Callable[[pl.Trainer], int],
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.net: Any = net  # a Module with no_weight_decay()
        self.optimizer, self.schedule = optimizer, schedule
        self.loss, self.label_smoothing, self.target_threshold = loss, label_smoothing, target_threshold
        self.clip_grad, self.seed = clip_grad, seed
        self.total_steps, self.origin = total_steps, origin
        self.finite = FiniteSteps(nonfinite)
        self.hits: list[Tensor] = []  # of each batch of the latest test, per image; those of this rank
        self.metrics: Any = nn.ModuleDict({split: eval_metrics(num_classes) for split in ("val", "test")})

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; the one that Lightning sets before and after every hook without a look for parameters."""
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def configure_model(self) -> None:
        """Shard the network. Lightning calls this when the devices are known, and again for each evaluation."""
        if self.device_mesh is not None:
            shard(self.net, self.device_mesh["data_parallel"])

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout and drop path by (seed, batch, rank), not by history: resuming needs no state of generators."""
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        seed = hash((self.seed, batches, self.global_rank)) % 2**63  # of integers: the same in every process
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        images, labels = batch
        logits = self.net(images)
        loss = loss_of(logits, labels, self.loss, smoothing=self.label_smoothing, threshold=self.target_threshold)
        hard_labels = labels.argmax(1) if labels.ndim == 2 else labels  # for mixed images, the class of largest share
        hits = (logits.detach().argmax(1) == hard_labels).sum()
        return {"loss": loss, "batch_loss": loss.detach(), "hits": hits}

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: object, **__: object) -> None:
        params = [p for group in optimizer.param_groups for p in group["params"]]  # sooner than a walk over the modules
        norm = nn.utils.clip_grad_norm_(params, self.clip_grad or float("inf")).detach()
        self.finite.watch(optimizer, norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.measure("val", batch)

    def on_test_epoch_start(self) -> None:
        self.hits = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.hits.append(self.measure("test", batch).argmax(1) == batch[1])

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the predicted class of each image, its label, and the probabilities of both."""
        images, labels = batch
        logits = self.logits(images)
        classes, shares = logits.argmax(1), logits.float().softmax(1)
        confidence, label_probability = (shares.gather(1, each[:, None])[:, 0] for each in (classes, labels))
        return classes, labels, confidence, label_probability

    def logits(self, images: Float[Tensor, "b c H W"]) -> Float[Tensor, "b classes"]:
        """Logits, in evaluation, also of a batch of which no image decodes.

        Many networks of timm's take no empty batch: one grey image stands in, as ranks that hold shards must all run.
        """
        return self.net(images if len(images) else images.new_zeros(1, *images.shape[1:]))[: len(images)]

    def measure(self, split: str, batch: Batch) -> Float[Tensor, "b classes"]:
        """Add a batch to the metrics of a split, and return its logits."""
        images, labels = batch
        logits = self.logits(images).float()
        by_name = {}
        for name, metric in self.metrics[split].items():
            if not len(labels):  # no image of the batch decodes
                pass
            elif name == "loss":
                metric.update(F.cross_entropy(logits, labels, reduction="none"))
            else:
                metric.update(logits, labels)
            by_name[f"{split}/{name}"] = metric
        self.log_dict(by_name, on_step=False, on_epoch=True, logger=False)  # callbacks write them, with the speed
        return logits

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.finite.check(self.trainer)
        checkpoint["patchbench"] = self.origin

    def make_optimizer(self) -> Optimizer:
        """Return a new optimizer of the parameters that are trained."""
        return self.optimizer(parameter_groups(self.net, muon=getattr(self.optimizer, "func", None) is Muon))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.make_optimizer()
        # The trainer's own estimate would start the loaders before a checkpoint restores their position.
        schedule = self.schedule(optimizer, self.total_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


# Lightning asks for it in every step, and to work it out takes longer than to step the schedule.
Classify.training_step.__signature__ = inspect.signature(Classify.training_step)  # type: ignore[attr-defined]


def loss_of(
    logits: Float[Tensor, "b classes"],
    labels: Int[Tensor, " b"] | Float[Tensor, "b classes"],
    loss: Loss,
    *,
    smoothing: float,
    threshold: float | None,
) -> Float[Tensor, ""]:
    """Return the loss of training, averaged over images, and for `bce` over classes as well (Wightman et al., 2021).

    labels: the class of each image, or, of mixed images, the share of each class. smoothing: share of a label that is
    spread evenly over all classes. threshold: with `bce`, a class with a larger share gets the target 1, before
    labels are smoothed; with 0, both classes of a mixed image do (Touvron et al., 2022). None: a share is a target.
    """
    if loss == "cross_entropy":
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    targets = labels if labels.ndim == 2 else F.one_hot(labels, logits.shape[1]).float()
    if threshold is not None:
        targets = (targets > threshold).float()
    smoothed = (1 - smoothing) * targets + smoothing / logits.shape[1]
    return F.binary_cross_entropy_with_logits(logits.float(), smoothed)


def eval_metrics(num_classes: int) -> nn.ModuleDict:
    """Build the metrics of a split, summed over the images of all ranks: each image counts once in uneven shares."""
    metrics: dict[str, Metric] = {"loss": MeanMetric(nan_strategy="disable")}
    metrics["acc"] = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
    if num_classes > 5:
        metrics["acc5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5, validate_args=False)
    return nn.ModuleDict(metrics)
