"""Train one Vision Transformer and record what came of it.

python train.py embed=conv patch=16 pos=learned
python train.py -m embed=conv,linear patch=8,16 pos=none,learned
"""

import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from patchbench.config.command import command


@command("train")
def main(cfg: DictConfig) -> float:
    from patchbench.commands.train import train  # seconds of imports, not needed for --help and for refusals

    hydra = HydraConfig.get()
    out_dir = Path(os.path.relpath(hydra.runtime.output_dir))
    return train(cfg, dict(hydra.runtime.choices), out_dir, in_sweep=hydra.mode == RunMode.MULTIRUN)


if __name__ == "__main__":
    main()
