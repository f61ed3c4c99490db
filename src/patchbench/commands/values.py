"""Check of the values of a configuration, before anything is built from it."""

from omegaconf import DictConfig, OmegaConf, open_dict

from patchbench.config.kinds import check_arguments, check_kind, check_parts
from patchbench.config.knobs import check_schemes
from patchbench.evaluate.robustness import read_views
from patchbench.train.task import Classify


def check_values(cfg: DictConfig) -> None:
    """Check the types of all values. ValueError names the first value of a wrong type, and the expected type."""
    if "pos" in cfg:
        check_schemes()
    cfg = cfg.copy()
    if "model" in cfg and "init_from" in cfg.model:  # no argument of the network: training reads it
        check_kind("model.init_from", cfg.model.init_from, str | None)
        with open_dict(cfg):
            del cfg.model.init_from
    for name in map(str, cfg):
        if name != "hydra" and OmegaConf.is_dict(cfg._get_node(name)):
            check_parts(name, cfg[name])
    if "eval" in cfg:
        check_arguments("eval", cfg.eval, read_views)
    if "optim" in cfg:
        check_arguments("optim", cfg.optim, Classify)  # label_smoothing and clip_grad
    for name in ("csv", "tables", "checkpoints"):
        if "logger" in cfg:
            check_kind(f"logger.{name}", cfg.logger[name], bool)
