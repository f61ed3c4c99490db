"""Walk one image through the input stage, as a table and as a page with figures.

python scripts/explain.py embed=conv patch=16 pos=learned data=digits image=0
python scripts/explain.py ckpt=runs/<run>/best.ckpt
"""

import logging

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from patchbench.config.command import command


@command("explain")
def main(cfg: DictConfig) -> None:
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # the first time it reports on its cache of fonts
    from patchbench.commands.explain import explain  # seconds of imports, not needed for --help and for refusals

    hydra = HydraConfig.get()
    explain(cfg, dict(hydra.runtime.choices), list(hydra.overrides.task))


if __name__ == "__main__":
    main()
