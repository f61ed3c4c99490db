"""A record contains the answers to all test images, and its accuracy is the share of right ones."""

import numpy as np
import pandas as pd
import pytest
from support import run

from patchbench.runs.hits import Hits, read_hits, unpacked
from patchbench.runs.records import load


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 360])
def test_answers_are_packed_without_loss(count):
    draw = np.random.default_rng(count).random((2, count)) < 0.7
    for asked in (draw[0], np.ones(count, bool)):
        hits = Hits(draw[1] & asked, asked)
        again = unpacked(hits.packed())
        np.testing.assert_array_equal(again.right, hits.right)
        np.testing.assert_array_equal(again.asked, hits.asked)


def test_the_bits_of_a_run_are_its_predictions_and_their_share_is_its_accuracy(tmp_path, micro):
    done = run(tmp_path / "run", *micro, "limit_batches=null", "epochs=1", "optim.lr=3e-3", "logger.tables=true")
    hits, result = read_hits(tmp_path / "run"), done["result"]
    predicted = pd.read_csv(tmp_path / "run" / "predictions.csv").sort_values("image")
    np.testing.assert_array_equal(hits.right, (predicted["label"] == predicted["predicted"]).to_numpy())
    assert hits.asked.all()
    assert 0 < result["test/right"] == hits.right.sum() < result["test/images"] == len(hits.right)
    assert result["test/acc"] == result["test/right"] / result["test/images"]
    assert not [name for name in load(tmp_path) if "hits" in name], "tables of runs do not carry the bits"


def test_images_that_were_not_asked_are_marked(tmp_path, micro):
    result = run(tmp_path, *micro, "epochs=1")["result"]
    hits = read_hits(tmp_path)
    np.testing.assert_array_equal(hits.asked, np.arange(360) < 4 * 32)
    assert (hits.asked.sum(), hits.right.sum()) == (result["test/images"], result["test/right"])
    assert not hits.right[~hits.asked].any()


def test_a_generated_set_has_a_count_and_no_bits(tmp_path, micro):
    result = run(tmp_path, *micro, "epochs=1", "data=quadrant")["result"]
    assert read_hits(tmp_path) is None
    assert result["test/acc"] == result["test/right"] / result["test/images"]
