"""All figures of the measurements of a network."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from patchbench.measure.summary import Measures
from patchbench.pages.analyze.embedding import channels, kernels
from patchbench.pages.analyze.position import bias, positions, rotation
from patchbench.pages.analyze.robustness import robustness
from patchbench.pages.analyze.trunk import distance, fields, readout, rollout


def pictures(m: Measures, robust: Mapping[str, float]) -> dict[str, Figure]:
    """Draw all figures for which there are measurements, by name. robust: see `robustness`; empty if not measured."""
    drawn = {}
    if m.kernels:
        drawn["kernels"] = kernels(m.kernels)
        if m.kernels.weights.shape[1] == 3:
            drawn["channels"] = channels(m.kernels)
    for place, vectors in m.positions.items():
        drawn[f"positions_{place}"] = positions(vectors)
    if m.turns is not None:
        drawn["rotation"] = rotation(m.turns)
    if m.bias:
        drawn["bias"] = bias(m.bias, m.img_size)
    if m.attention:
        drawn["distance"] = distance(m.attention, m.img_size)
        drawn["rollout"] = rollout(m.attention.rollout, m.images)
    if m.fields:
        drawn["fields"] = fields(m.fields)
    if m.readout:
        drawn["readout"] = readout(m.readout)
    if robust:
        drawn["robustness"] = robustness(robust)
    return drawn
