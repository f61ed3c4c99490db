"""Checks of a composed configuration that need neither torch nor data, so that a refusal comes in a second."""

from omegaconf import DictConfig, OmegaConf

from patchbench.checks import cover, size
from patchbench.config.errors import refusing
from patchbench.config.identity import reads, to_plain

RATES = ("lr", "weight_decay", "momentum")


def refuse_early(cfg: DictConfig) -> None:
    """Raise Refused for a number that is impossible, and for patches that do not cover the image.

    Values of a wrong type are left to the checks of types, which come later.
    """
    with refusing(ValueError):
        check_numbers(cfg)
        if all(isinstance(cfg.optim.get(name, 0), int | float) for name in RATES):
            check_rates(cfg.optim)
    refuse_uncovered_image(cfg)


def check_numbers(cfg: DictConfig) -> None:
    """Check the numbers outside of the groups, whose types Hydra has checked. ValueError names the option."""
    for name in ("epochs", "batch_size", "log_every"):
        if cfg[name] < 1:
            raise ValueError(f"{name}={cfg[name]} must be at least 1")
    if not 0 <= cfg.seed < 2**63:
        raise ValueError(f"seed={cfg.seed} must be at least 0 and below 2**63")
    if cfg.limit_batches is not None and cfg.limit_batches < 1:
        raise ValueError(f"limit_batches={cfg.limit_batches} must be at least 1, or null for all")
    if not 0 <= cfg.resident <= 1:
        raise ValueError(f"resident={cfg.resident} is no share of the device's memory: use 0 to 1")


def check_rates(optim: DictConfig) -> None:
    """Raise ValueError if a rate of the optimizer is negative."""
    for name in RATES:
        if name in optim and not optim[name] >= 0:
            raise ValueError(f"optim.{name}={optim[name]} must not be negative")


def refuse_uncovered_image(cfg: DictConfig) -> None:
    """Raise Refused if the patches do not cover the image and `embed.pad` is false."""
    if not reads(cfg, "embed") or cfg.embed.get("pad") is not False:
        return
    try:
        image = size("data.img_size", to_plain(OmegaConf.select(cfg, "data.img_size", throw_on_missing=False)))
        patch = size("patch", to_plain(OmegaConf.select(cfg, "embed.patch_size", throw_on_missing=False)))
    except ValueError:
        return
    with refusing(ValueError):
        cover(image, patch, pad=False)
