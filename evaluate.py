"""Test a trained network again, from its checkpoint alone.

python evaluate.py ckpt=runs/<run>/best.ckpt
"""

from pathlib import Path

from omegaconf import DictConfig

from patchbench.config.command import command


@command("evaluate")
def main(cfg: DictConfig) -> None:
    from patchbench.commands.evaluate import evaluate  # seconds of imports, not needed for --help and for refusals

    evaluate(
        Path(cfg.ckpt),
        cfg.trainer,
        cfg.eval,
        workers=cfg.workers,
        resident=cfg.resident,
        data_root=cfg.data_root,
    )


if __name__ == "__main__":
    main()
