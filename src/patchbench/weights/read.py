"""Reading of trained weights: from the Hugging Face hub by timm's name, or from a file of timm or of this project."""

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
from patchbench.weights.knobs import OLD_DEFAULTS
from patchbench.weights.timm import Metadata, Weights, from_timm, metadata_of

FILES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".tar")
SOURCES = ("hf-hub:", "hf_hub:", "local-dir:")  # prefixes of names that timm.create_model accepts
WHERE = ("state_dict_ema", "model_ema", "state_dict", "model")  # keys of weights in a file of timm, averages first
WRAPPED = re.compile(r"^((module|_orig_mod)\.)+")  # prefixes of DistributedDataParallel and torch.compile
PATCHES = ("conv", "linear")  # options of embed that project patches


def read(init_from: str, grid_size: Size) -> Weights:
    """Read weights from the hub or from a file. grid_size: grid of the network that will load them.

    ValueError if there are no weights of a Vision Transformer under that name.
    """
    path = Path(init_from)
    try:
        if path.suffix not in FILES and not path.is_file():
            return download(init_from, grid_size)
        return open_file(path, grid_size)
    except ValueError as error:
        raise ValueError(f"model.init_from={init_from} {error}") from error


def open_file(path: Path, grid_size: Size) -> Weights:
    """Read weights from a file of timm or of this project. ValueError if it cannot be read."""
    if not path.is_file():
        raise ValueError("does not exist: no such file")
    checkpoint: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {}).get("patchbench", "{}"))
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # the arguments in files of timm's train.py
                checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            if "patchbench" in checkpoint:
                check_seal(path)
                return from_checkpoint(checkpoint)
            candidates = [checkpoint[key] for key in WHERE if checkpoint.get(key)]
            state = (candidates or [checkpoint])[0]
        state = {WRAPPED.sub("", name): w for name, w in state.items()}
    except Exception as error:  # torch and safetensors raise many classes of exceptions
        reason = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()[0].partition(". ")[0]
        raise ValueError(
            f"cannot be read ({reason}): use a file of tensors, such as torch.save(net.state_dict(), ...) writes"
        ) from error
    if facts:
        return from_timm(state, metadata_of_export(facts), grid_size)
    arguments = checkpoint.get("args")
    metadata = metadata_of_arguments(vars(arguments)) if isinstance(arguments, argparse.Namespace) else Metadata()
    return from_timm(state, metadata, grid_size)


def metadata_of_export(facts: dict[str, Any]) -> Metadata:
    """Return the metadata that `export` wrote into the file."""
    rows, cols = facts["grid_size"]
    knobs = OLD_DEFAULTS | {"model.num_heads": facts["num_heads"]} | facts.get("knobs", {})
    return Metadata(knobs, (rows, cols), None, pool=facts["pool"])


def metadata_of_arguments(arguments: dict[str, Any]) -> Metadata:
    """Return the metadata that follow from the arguments of timm's train.py; empty if timm cannot build the network."""
    names = {"num_classes": "num_classes", "in_chans": "in_chans", "gp": "global_pool", "img_size": "img_size"}
    arguments_of_timm = {to: arguments[name] for name, to in names.items() if arguments.get(name) is not None}
    try:
        with torch.device("meta"):
            vit = timm.create_model(arguments["model"], **arguments_of_timm | (arguments.get("model_kwargs") or {}))
    except Exception:  # of timm, for arguments of another version
        return Metadata()
    return metadata_of(vit)


def download(name: str, grid_size: Size) -> Weights:
    """Download the weights of a network of timm from the hub. ValueError if that is not possible."""
    hub_logging.set_verbosity_error()  # else each failed attempt is logged
    if not name.startswith(SOURCES) and not timm.is_model(name):
        close = nearest(name, timm.list_models("*vit*") + timm.list_pretrained("vit_*"))
        hint = f"did you mean {close[0]}?" if close else "timm.list_pretrained('vit_*') lists the names"
        raise ValueError(f"is neither a file nor a network of timm: {hint}")
    try:
        vit = timm.create_model(name, pretrained=True)
    except Exception as error:  # of the hub, of the network, or of timm if there are no such weights
        raise ValueError(
            f"cannot be downloaded from the hub ({str(error).splitlines()[0]}): give a file instead, or download it "
            "once with a network connection"
        ) from error
    return from_timm(vit.state_dict(), metadata_of(vit), grid_size)


def net_state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights of the network in a checkpoint, under their names in the network."""
    return {n.removeprefix("net."): w for n, w in checkpoint["state_dict"].items() if n.startswith("net.")}


def from_checkpoint(checkpoint: dict[str, Any]) -> Weights:
    """Return the weights of a checkpoint of this project; empty for a network that is no ViT."""
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
    knobs = OLD_DEFAULTS | {f"model.{name}": value for name, value in config["model"].items()}
    if "rope" in config["pos"]:
        knobs |= {f"pos.rope.rotation.{name}": value for name, value in config["pos"]["rope"]["rotation"].items()}
    model, (embed_dim, hidden) = config["model"], state["blocks.0.mlp.fc2.weight"].shape
    knobs["model.mlp_ratio"] = hidden / embed_dim  # the ratio in the configuration may be rounded
    return Weights(state, knobs, patches, places, model["pool"], model.get("final_norm", "pooled"))
