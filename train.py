"""Train one Vision Transformer and record what came of it.

python train.py embed=conv patch=16 pos=learned
python train.py -m embed=conv,linear patch=8,16 pos=none,learned
"""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from patchbench.config.command import command
from patchbench.config.early import refuse_early
from patchbench.config.unread import remarks_on_unread
from patchbench.machine import display_path


@command("train")
def main(cfg: DictConfig) -> float:
    hydra = HydraConfig.get()
    choices, in_sweep = dict(hydra.runtime.choices), hydra.mode == RunMode.MULTIRUN
    remarks = remarks_on_unread(cfg, choices, hydra.overrides.task, in_sweep=in_sweep)
    refuse_early(cfg)

    from patchbench.commands.train import train  # seconds of imports, not needed for --help and for refusals

    out_dir = display_path(Path(hydra.runtime.output_dir))
    return train(cfg, choices, out_dir, remarks=remarks, in_sweep=in_sweep)


if __name__ == "__main__":
    main()
