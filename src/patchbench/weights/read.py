"""Trained weights found and opened: by timm's name from the hub, or in a file of timm's or ours."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub.utils import logging as hub_logging
from safetensors import safe_open
from torch import Tensor

from patchbench.checks import Size, nearest, size
from patchbench.layout import PLACES
from patchbench.runs.sealed import check_seal
from patchbench.weights.knobs import BEFORE
from patchbench.weights.timm import Told, Weights, from_timm, told_by

FILES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".tar")
SOURCES = ("hf-hub:", "hf_hub:", "local-dir:")  # of timm.create_model, beside the names of its networks
WHERE = ("state_dict_ema", "model_ema", "state_dict", "model")  # in a file of timm's, what is averaged first
WRAPPED = re.compile(r"^((module|_orig_mod)\.)+")  # by DistributedDataParallel, by torch.compile
PATCHES = ("conv", "linear")  # options of embed that cut and project


def read(init_from: str, grid_size: Size) -> Weights:
    """Read weights from the hub or from a file. grid_size: of the network that they are for.

    ValueError if there is nothing, or nothing of this kind, under that name.
    """
    path = Path(init_from)
    try:
        if path.suffix not in FILES and not path.is_file():
            return download(init_from, grid_size)
        return open_file(path, grid_size)
    except ValueError as error:
        raise ValueError(f"model.init_from={init_from} {error}") from error


def open_file(path: Path, grid_size: Size) -> Weights:
    if not path.is_file():
        raise ValueError("is a file that is not there: no such file")
    checkpoint: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {}).get("patchbench", "{}"))
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # of the arguments of timm's train.py
                checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            if "patchbench" in checkpoint:
                check_seal(path)
                return from_checkpoint(checkpoint)
            inside = [checkpoint[key] for key in WHERE if checkpoint.get(key)]
            state = (inside or [checkpoint])[0]
        state = {WRAPPED.sub("", name): w for name, w in state.items()}
    except Exception as error:  # torch and safetensors raise a class of their own for each way to be no such file
        reason = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()[0].partition(". ")[0]
        raise ValueError(
            f"cannot be read ({reason}): use a file of tensors, such as torch.save(net.state_dict(), ...) writes"
        ) from error
    if facts:
        return from_timm(state, told_by_export(facts), grid_size)
    arguments = checkpoint.get("args")
    told = told_by_arguments(vars(arguments)) if isinstance(arguments, argparse.Namespace) else Told()
    return from_timm(state, told, grid_size)


def told_by_export(facts: dict[str, Any]) -> Told:
    """Facts that an export of ours wrote beside the weights."""
    rows, cols = facts["grid_size"]
    knobs = BEFORE | {"model.num_heads": facts["num_heads"]} | facts.get("knobs", {})
    return Told(knobs, (rows, cols), None, pool=facts["pool"])


def told_by_arguments(arguments: dict[str, Any]) -> Told:
    """Facts that follow from the arguments of a training by timm's train.py; none where they build no network."""
    names = {"num_classes": "num_classes", "in_chans": "in_chans", "gp": "global_pool", "img_size": "img_size"}
    given = {to: arguments[name] for name, to in names.items() if arguments.get(name) is not None}
    try:
        with torch.device("meta"):
            vit = timm.create_model(arguments["model"], **given | (arguments.get("model_kwargs") or {}))
    except Exception:  # whatever timm raises for arguments of another version
        return Told()
    return told_by(vit)


def download(name: str, grid_size: Size) -> Weights:
    hub_logging.set_verbosity_error()  # of each failed attempt it would say so
    if not name.startswith(SOURCES) and not timm.is_model(name):
        close = nearest(name, timm.list_models("*vit*") + timm.list_pretrained("vit_*"))
        hint = f"did you mean {close[0]}?" if close else "timm.list_pretrained('vit_*') lists the names"
        raise ValueError(f"is neither a file nor a network of timm: {hint}")
    try:
        vit = timm.create_model(name, pretrained=True)
    except Exception as error:  # of the hub, of the network below it, or of timm where it has no weights to give
        raise ValueError(
            f"cannot be had from the hub ({str(error).splitlines()[0]}): give a file instead, or download it once "
            "where there is a network"
        ) from error
    return from_timm(vit.state_dict(), told_by(vit), grid_size)


def net_state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The network's part of what a training of ours keeps, under the network's own names."""
    return {n.removeprefix("net."): w for n, w in checkpoint["state_dict"].items() if n.startswith("net.")}


def from_checkpoint(checkpoint: dict[str, Any]) -> Weights:
    """Weights of a training of ours; none of a network that is no ViT."""
    origin = checkpoint["patchbench"]
    if origin["factors"]["pos"] is None:
        return Weights({})
    config, state = origin["config"], net_state(checkpoint)
    patches = origin["options"]["embed"] in PATCHES
    if patches:
        patch_size = size("patch", config["embed"]["patch_size"])
        state["embed.proj.weight"] = state["embed.proj.weight"].flatten(1).unflatten(1, (-1, *patch_size))
    places = {
        place: name
        for name, scheme in config["pos"].items()
        for place, part in scheme.items()
        if place in PLACES and part is not None
    }
    knobs = BEFORE | {f"model.{name}": value for name, value in config["model"].items()}
    if "rope" in config["pos"]:
        knobs |= {f"pos.rope.rotation.{name}": value for name, value in config["pos"]["rope"]["rotation"].items()}
    model, (embed_dim, hidden) = config["model"], state["blocks.0.mlp.fc2.weight"].shape
    knobs["model.mlp_ratio"] = hidden / embed_dim  # that of the configuration may round to this one
    return Weights(state, knobs, patches, places, model["pool"], model.get("final_norm", "pooled"))
