"""Tables of the predictions for each test image."""

from collections.abc import Sequence

import pandas as pd
from torch import Tensor

from patchbench.machine import printable


def predictions(
    indices: Tensor,
    labels: Tensor,
    classes: Tensor,
    confidence: Tensor,
    label_probability: Tensor,
    names: Sequence[object] | None,
) -> pd.DataFrame:
    """Return a row per image, with the worst predictions first.

    Columns: image, its number in the split; label and predicted, as names if the classes have names; probability, that
    of the predicted class; probability_of_label.
    """
    columns = {"image": indices, "label": labels, "predicted": classes, "probability": confidence}
    table = pd.DataFrame({name: column.numpy() for name, column in columns.items()})
    table["probability_of_label"] = label_probability.numpy()
    if names:
        for column in ("label", "predicted"):
            table[column] = [printable(str(names[i])) for i in table[column]]
    return table.sort_values("probability_of_label", kind="stable", ignore_index=True)


def confusion(predicted: pd.DataFrame) -> pd.DataFrame:
    """Count the pairs of label and predicted class: label, predicted, count. Pairs that do not occur have no row."""
    return predicted.groupby(["label", "predicted"]).size().rename("count").reset_index()
