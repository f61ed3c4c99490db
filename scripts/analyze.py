"""Show what the input stage of a trained network has learned: pictures, a page, and numbers.

python scripts/analyze.py ckpt=runs/<run>/best.ckpt
"""

import logging
from pathlib import Path

from omegaconf import DictConfig

from patchbench.config.command import command


@command("analyze")
def main(cfg: DictConfig) -> None:
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # the first time it reports on its cache of fonts
    from patchbench.commands.analyze import analyze  # seconds of imports, not needed for --help and for refusals
    from patchbench.commands.reopen import Machine

    ckpt = Path(cfg.ckpt)
    machine = Machine(cfg.trainer, cfg.workers, cfg.resident, cfg.data_root)
    analyze(ckpt, Path(cfg.out) if cfg.out else ckpt.parent, machine, images=cfg.images)


if __name__ == "__main__":
    main()
