"""The parameters of the default networks as text: shape, initialisation, and weight decay.

A change here changes the initial weights of every study. If that is intended:
python -m pytest tests/test_golden.py --regenerate
"""

import re
from pathlib import Path

import pytest
import torch
from support import options, some

from patchbench.config.identity import baseline

GOLDEN = Path(__file__).parent / "golden"


def describe(net: torch.nn.Module) -> str:
    """Return a line for each parameter, and one line for all blocks if they agree."""
    spared = net.no_weight_decay()
    alike: dict[tuple[str, ...], list[torch.Tensor]] = {}
    for name, p in net.named_parameters():
        decayed = "decayed" if p.ndim > 1 and name not in spared else "not decayed"
        shape = "x".join(map(str, p.shape))
        alike.setdefault((re.sub(r"^blocks\.\d+", "blocks.*", name), shape, decayed), []).append(p.detach().flatten())
    return "".join(
        f"{name:28} {len(same):>2} x {shape:12} {start(torch.cat(same)):24} {decayed}\n"
        for (name, shape, decayed), same in alike.items()
    )


def start(values: torch.Tensor) -> str:
    """Describe the initial values: zeros, ones, or mean and standard deviation, rounded."""
    if not values.numel():
        return "empty"
    if (values == values[0]).all():
        return {0.0: "zeros", 1.0: "ones"}.get(values[0].item(), f"all {values[0].item():.3g}")
    return f"mean {abs(values.mean().item()):.2f} std {values.std().item():.1g}"


@pytest.mark.parametrize("model", some(options("model"), "micro", "resnet"))
def test_parameters_start_and_decay_as_written_down(build, model, request):
    torch.manual_seed(0)
    text = describe(build(f"model={model}"))
    path = GOLDEN / f"{model}.txt"
    if request.config.getoption("regenerate"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    if not path.exists() and f"model/{model}" not in baseline():
        pytest.skip("a new model: --regenerate writes it down, so that no later change alters it unnoticed")
    assert text == path.read_text(), "what every run starts from has changed; if it is meant, use --regenerate"
