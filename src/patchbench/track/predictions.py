"""Tables of the predictions of test images."""

from collections.abc import Sequence

import pandas as pd
from torch import Tensor


def predictions(
    indices: Tensor,
    labels: Tensor,
    classes: Tensor,
    confidence: Tensor,
    label_probability: Tensor,
    names: Sequence[object] | None,
) -> pd.DataFrame:
    """A row per image, first what the network was most wrong of.

    Columns: image, its number in the split; label and predicted, by name where classes have names; probability, of the
    predicted class; probability_of_label.
    """
    columns = {"image": indices, "label": labels, "predicted": classes, "probability": confidence}
    found = pd.DataFrame({name: column.numpy() for name, column in columns.items()})
    found["probability_of_label"] = label_probability.numpy()
    if names:
        for column in ("label", "predicted"):
            found[column] = [str(names[i]) for i in found[column]]
    return found.sort_values("probability_of_label", kind="stable", ignore_index=True)


def confusion(predicted: pd.DataFrame) -> pd.DataFrame:
    """How often which label was taken for what: label, predicted, count; pairs that never came up are left out."""
    return predicted.groupby(["label", "predicted"]).size().rename("count").reset_index()
