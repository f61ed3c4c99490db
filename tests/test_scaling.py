"""Time by number of tokens: known coefficients are recovered, and the page of a study of costs shows them."""

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from patchbench.commands.report import report_all, report_study
from patchbench.config.equal_time import COLUMNS
from patchbench.statistics.scaling import Scaling, fit

TOKENS = np.array([16.0, 64.0, 144.0, 256.0, 576.0, 1024.0])


@pytest.mark.parametrize("parts", [(7.0, 0.02, 3e-5), (0.0, 0.02, 3e-5), (7.0, 0.0, 3e-5), (7.0, 0.02, 0.0)])
def test_the_parts_that_were_put_in_are_found(parts):
    true = Scaling(*parts)
    found = fit(TOKENS, true.at(TOKENS))
    np.testing.assert_allclose((found.constant, found.linear, found.quadratic), parts, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.at(TOKENS), true.at(TOKENS), rtol=1e-6)


def test_the_crossover_is_where_both_parts_are_equal():
    scaling = Scaling(5.0, 0.02, 4e-5)
    n = scaling.crossover
    assert n == pytest.approx(500)
    assert scaling.linear * n == pytest.approx(scaling.quadratic * n**2)
    assert Scaling(5.0, 0.02, 0.0).crossover == np.inf


def test_noise_of_a_tenth_moves_the_parts_by_about_a_tenth():
    draw, true = np.random.default_rng(0), Scaling(7.0, 0.05, 1e-4)
    fits = [fit(TOKENS, true.at(TOKENS) * np.exp(0.1 * draw.standard_normal(len(TOKENS)))) for _ in range(300)]
    assert np.median([f.quadratic for f in fits]) == pytest.approx(true.quadratic, rel=0.15)
    assert np.median([f.constant for f in fits]) == pytest.approx(true.constant, rel=0.15)


def test_three_parts_need_three_numbers_of_tokens():
    with pytest.raises(ValueError, match="3 parts need as many different numbers"):
        fit(TOKENS[:2], TOKENS[:2] * 1.0)
    assert fit(TOKENS[:2], TOKENS[:2] * 2.0, constant=False).linear == pytest.approx(2.0)


def test_a_study_of_costs_is_told_from_its_measurements_alone(tmp_path):
    study = {
        "question": "What do tokens cost?",
        "evidence": "costs",
        "decides": ["twice"],
        "tune": False,
        "metric": "log2(final/step_ms_median)",
        "overrides": ["data=random", "model=micro", "pos=none", "patch=4"],
        "scales": {"cpu": {"seeds": "0-5", "overrides": ["trainer=cpu"]}},
        "parts": {
            "size": {
                "factors": {"data.img_size": [16, 32, 48, 64]},
                "statements": {"twice": {"says": "It is dearer.", "that": "64 - 16", "above": 1.0, "predicted": "yes"}},
            }
        },
    }
    folder = tmp_path / "experiments" / "price"
    folder.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(study), folder / "study.yaml")
    with pytest.raises(ValueError, match=r"there is no .*costs\.csv: python scripts/costs\.py price scale=cpu"):
        report_study("price", tmp_path, "cpu", experiments=folder.parent)

    draw, true, rows = np.random.default_rng(0), Scaling(5.0, 0.02, 1e-4), []
    for number in range(6):
        for size, n in zip((16, 32, 48, 64), TOKENS, strict=False):
            time = true.at(n) * np.exp(0.01 * draw.standard_normal())
            row = dict.fromkeys(COLUMNS, 0) | {"part": "size", "arm": str(size), "round": number, "step_ms": time}
            row |= {"tokens": n, "gmacs": 1e-5 * n + 1e-7 * n**2, "device": "a clock", "computation": f"{size:08d}"}
            rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "costs.csv", index=False)
    report_study("price", tmp_path, "cpu", experiments=folder.parent)
    page = (folder / "README.md").read_text()
    assert "> **Yes.** It is dearer." in page
    assert "24 of 24 planned measurements have a result: 4 arms in 1 part, 6 rounds" in page
    assert "Measured on a clock." in page
    assert "by multiply-accumulates it is as large at 100." in page
    assert (folder / "growth.svg").exists()
    assert not (folder / "runs.csv").exists()
    [constant] = [line for line in page.splitlines() if line.startswith("| constant |")]
    assert float(constant.split("|")[2].split()[0]) == pytest.approx(true.constant, rel=0.1)
    report_all(folder.parent)
    assert "It is dearer." in (folder.parent / "predictions.md").read_text()
