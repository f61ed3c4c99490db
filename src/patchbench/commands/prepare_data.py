"""Preparation of a cache of a data set, once for many runs."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from patchbench.checks import size
from patchbench.commands.build import build_source, check_workers
from patchbench.commands.values import check_values
from patchbench.config.errors import refusing
from patchbench.config.identity import LIMITS, to_plain
from patchbench.data.cache_format import PREPARE
from patchbench.data.cache_verify import verify
from patchbench.data.cache_writer import prepare as write_cache
from patchbench.machine import cores
from patchbench.track.terminal import say, spell_list, spell_size


def prepare_cache(cfg: DictConfig, given: Sequence[str]) -> None:
    """Write a cache of the data set `cfg.data` to `cfg.out`, or, with `cfg.verify`, verify an existing cache.

    given: the arguments of the command. Refused if the data set cannot be read, the cache cannot be written, or the
    verified cache was altered.
    """
    with refusing():
        out = Path(cfg.out).expanduser()
        check_values(OmegaConf.masked_copy(cfg, ["data"]))
        size("size", to_plain(cfg.size))
        check_workers(cfg.workers)
        workers = cores() if cfg.workers == "auto" else cfg.workers
        if cfg.verify:
            say(f"{out}: all {verify(out, workers=workers):,} images and labels are as they were written")
            return
        whole = {"crop_pct": 1.0} if "crop_pct" in cfg.data else {}  # training cannot use pixels that are cut off now
        wanted: Any = OmegaConf.merge(cfg, {"data": {"img_size": cfg.size} | whole})
        knobs: Any = OmegaConf.to_container(wanted.data, resolve=True)
        made_from = {knob: value for knob, value in knobs.items() if f"data.{knob}" not in LIMITS}
        command = f"{PREPARE} {shlex.join(given)}"
        source = build_source(wanted)
        meta = write_cache(source, out, made_from=made_from, command=command, workers=workers)
    for remark in getattr(source, "remarks", ()):
        say(remark)
    images = {name: sum(stop - start for start, stop, _ in split["chunks"]) for name, split in meta["splits"].items()}
    counts = ", ".join(f"{count:,} {name}" for name, count in images.items())
    left_out = sum(split["rows"] for split in meta["splits"].values()) - sum(images.values())
    bad = f"; {left_out:,} that do not decode were left out" if left_out else ""
    say(f"{out} holds {counts} images of {spell_size(meta['img_size'])} pixels{bad}")
    for origin in ("source", "measured"):
        say(f"{origin}: mean {spell_list(meta[origin]['mean'])}, standard deviation {spell_list(meta[origin]['std'])}")
    say(f"python train.py data=cached data.root={shlex.quote(str(out))}")
