"""Checks of whole networks: comparison with other libraries, trained parts, attention, cost, accepted inputs."""

from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
from torch import nn

from patchbench.document.patches import largest_difference
from patchbench.nets.cost import cost, num_tokens
from patchbench.weights.timm import from_timm, metadata_of

Build = Callable[..., nn.Module]


def like_text(build: Build, options: Sequence[str] = (), words: int = 196) -> dict[str, Any]:
    """Compare the blocks of a ViT with torch's `nn.TransformerEncoder`, which is made for text, with equal weights.

    words: length of the sequence. Both are pre-norm, in float64; the options must not change norms and MLPs.
    """
    net: Any = build(*options).double().eval()
    width, first = net.layout.embed_dim, net.blocks[0]
    layer = nn.TransformerEncoderLayer(
        width,
        net.layout.num_heads,
        first.mlp.fc1.out_features,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=first.norm1.eps,
        batch_first=True,
        norm_first=True,
        dtype=torch.float64,
    )
    encoder = nn.TransformerEncoder(layer, len(net.blocks), enable_nested_tensor=False).eval()
    names = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj.": "attn.proj.",
        "linear1.": "mlp.fc1.",
        "linear2.": "mlp.fc2.",
    }
    for theirs, ours in zip(encoder.layers, net.blocks, strict=True):
        state = dict(ours.state_dict())
        renamed = {}
        for name in theirs.state_dict():
            prefix = next((prefix for prefix in names if name.startswith(prefix)), "")
            renamed[name] = state.pop(names.get(prefix, "") + name.removeprefix(prefix))
        assert not state, "every weight of a block is torch's"
        theirs.load_state_dict(renamed)
    sequence = torch.randn(2, words, width, dtype=torch.float64)
    with torch.no_grad():
        out = sequence
        for block in net.blocks:
            out = block(out)
        return {
            "blocks": len(net.blocks),
            "words": words,
            "largest_value": float(out.abs().max()),
            "largest_difference": largest_difference(out, encoder(sequence)),
        }


def like_timm(build: Build, name: str = "vit_base_patch16_224", options: Sequence[str] = ()) -> dict[str, Any]:
    """Compare the logits of a network with those of timm's network `name` with equal weights, for one random image.

    width: output width of timm's projection. millions: number of parameters.
    """
    vit: Any = timm.create_model(name).eval()
    with torch.device("meta"):
        net: Any = build(*options)
    net = net.to_empty(device="cpu").eval()
    weights = from_timm(vit.state_dict(), metadata_of(vit), net.layout.grid_size)
    net.load_state_dict(weights.state)
    image = torch.randn(1, 3, *vit.patch_embed.img_size)
    with torch.no_grad():
        ours, theirs = net(image), vit(image)
    return {
        "name": name,
        "width": vit.patch_embed.proj.weight.shape[0],
        "millions": sum(weight.numel() for weight in net.parameters()) / 1e6,
        "largest_logit": float(theirs.abs().max()),
        "largest_difference": largest_difference(ours, theirs),
    }


def sequence(build: Build, options: Sequence[str] = ()) -> dict[str, Any]:
    """Return the size of the input of the first block for one image: patches, prefix tokens, their sum, width."""
    with torch.device("meta"):
        net: Any = build(*options)
        received: list[tuple[int, ...]] = []
        net.blocks[0].register_forward_pre_hook(lambda _, inputs: received.append(tuple(inputs[0].shape)))
        height, width = (n * net.embed.patch_size[0] for n in net.layout.grid_size)
        net(torch.zeros(1, 3, height, width))
    [(_, tokens, dimensions)] = received
    prefix = net.layout.num_prefix_tokens
    return {"patches": tokens - prefix, "prefix": prefix, "tokens": tokens, "width": dimensions}


def learnt(build: Build, options: Sequence[str] = (), part: str = "", steps: int = 3) -> dict[str, Any]:
    """Count the layers of a network, or of one of its parts, that change in a few steps of training.

    layers: convolutions and linear layers. frozen: layers whose weights do not change. One step is not enough, since a
    ResNet starts with branches that are multiplied by zero.
    """
    net = build(*options, "data.img_size=64")
    layers = [module for module in net.get_submodule(part).modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    before = [layer.weight.detach().clone() for layer in layers]
    optimizer = torch.optim.SGD([weight for weight in net.parameters() if weight.requires_grad], lr=0.1)
    images, labels = torch.randn(8, 3, 64, 64), torch.arange(8)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    moved = sum(not torch.equal(layer.weight, old) for layer, old in zip(layers, before, strict=True))
    return {"steps": steps, "layers": len(layers), "moved": moved, "frozen": len(layers) - moved}


def seen_at_once(build: Build, options: Sequence[str] = ()) -> dict[str, Any]:
    """Count the patches on which one token depends after the first block, with the gradient."""
    net: Any = build(*options).eval()
    rows, columns = net.layout.grid_size
    tokens = torch.randn(1, rows * columns, net.layout.embed_dim, requires_grad=True)
    net.blocks[0](tokens)[0, 0].square().sum().backward()
    assert tokens.grad is not None
    return {"patches": rows * columns, "seen": int((tokens.grad.abs().sum((0, 2)) > 0).sum())}


def cost_by_patch(
    build: Build, patches: Sequence[int] = (32, 16, 8), img_size: int = 224, options: Sequence[str] = ()
) -> dict[str, Any]:
    """Count tokens and multiply-accumulates (10^9) of the forward pass of an image, for several patch sizes."""
    lengths: list[int] = []
    gmacs: list[float] = []
    for patch in patches:
        with torch.device("meta"):
            net: Any = build(*options, f"patch={patch}", f"data.img_size={img_size}")
        counted = cost(net, net.layout, 3, (img_size, img_size))
        lengths.append(num_tokens(net.layout))
        gmacs.append(counted.macs / 1e9)
    return {
        "patches": list(patches),
        "tokens": lengths,
        "gmacs": gmacs,
        "times_tokens": lengths[-1] / lengths[0],
        "times_macs": gmacs[-1] / gmacs[0],
    }


def any_sequence(build: Build, embeds: Sequence[str], options: Sequence[str] = ()) -> dict[str, Any]:
    """Count the embeddings with sequences that the same blocks accept, for images of 32 pixels."""
    lengths = []
    for embed in embeds:
        net: Any = build(*options, f"embed={embed}", "data.img_size=32").eval()
        with torch.no_grad():
            if net(torch.randn(1, 3, 32, 32)).isfinite().all():
                lengths.append(net.layout.grid_size[0] * net.layout.grid_size[1])
    return {"embeds": list(embeds), "accepted": len(lengths), "tokens": lengths}


def refused_by_timm(name: str = "vit_tiny_patch16_224", other: int = 256) -> dict[str, Any]:
    """Test whether a plain ViT of timm accepts images of another size. error: first line of its message."""
    vit = timm.create_model(name).eval()
    try:
        with torch.no_grad():
            vit(torch.randn(1, 3, other, other))
    except (AssertionError, RuntimeError) as error:
        return {"name": name, "other": other, "runs": False, "error": str(error).split("\n")[0].rstrip(".")}
    return {"name": name, "other": other, "runs": True, "error": ""}
