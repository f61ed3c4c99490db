"""Test a trained network again, from its checkpoint alone.

python evaluate.py ckpt=runs/<run>/best.ckpt
"""

from pathlib import Path

from omegaconf import DictConfig

from patchbench.config.command import command


@command("evaluate")
def main(cfg: DictConfig) -> None:
    from patchbench.commands.evaluate import evaluate  # seconds of imports, not needed for --help and for refusals
    from patchbench.commands.reopen import Machine

    machine = Machine(cfg.trainer, cfg.workers, cfg.resident, cfg.data_root, cfg.max_skipped)
    evaluate(Path(cfg.ckpt), machine, cfg.eval)


if __name__ == "__main__":
    main()
