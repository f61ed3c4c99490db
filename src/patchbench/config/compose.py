"""Configurations from command lines."""

from pathlib import Path

CONF = Path(__file__).parents[3] / "conf"


EXPERIMENTS = CONF.parent / "experiments"
