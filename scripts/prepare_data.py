"""Convert a data set once to a memory-mapped uint8 cache, which training reads at the speed of memory.

python scripts/prepare_data.py data=imagefolder data.root=/data/imagenet size=256 out=/data/imagenet-256
"""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from patchbench.config.command import command


@command("prepare")
def main(cfg: DictConfig) -> None:
    from patchbench.commands.prepare_data import (
        prepare_cache,  # seconds of imports, not needed for --help and for refusals
    )

    prepare_cache(cfg, list(HydraConfig.get().overrides.task))


if __name__ == "__main__":
    main()
