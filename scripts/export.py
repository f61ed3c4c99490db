"""Write a trained network to a file that timm loads.

python scripts/export.py ckpt=runs/<run>/best.ckpt out=vit.safetensors
"""

from pathlib import Path

from omegaconf import DictConfig

from patchbench.config.command import command


@command("export")
def main(cfg: DictConfig) -> None:
    from patchbench.commands.export import export  # seconds of imports, not needed for --help and for refusals

    export(Path(cfg.ckpt), Path(cfg.out), data_root=cfg.data_root)


if __name__ == "__main__":
    main()
