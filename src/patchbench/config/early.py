"""Checks of a composed configuration that need neither torch nor data, so that a refusal comes in a second."""

from omegaconf import DictConfig, OmegaConf

from patchbench.checks import cover, size
from patchbench.config.errors import refusing
from patchbench.config.identity import reads, to_plain


def refuse_uncovered_image(cfg: DictConfig) -> None:
    """Raise Refused if the patches do not cover the image and `embed.pad` is false.

    Values of a wrong type are left to the checks of types, which come later.
    """
    if not reads(cfg, "embed") or cfg.embed.get("pad") is not False:
        return
    try:
        image = size("data.img_size", to_plain(OmegaConf.select(cfg, "data.img_size", throw_on_missing=False)))
        patch = size("patch", to_plain(OmegaConf.select(cfg, "embed.patch_size", throw_on_missing=False)))
    except ValueError:
        return
    with refusing(ValueError):
        cover(image, patch, pad=False)
