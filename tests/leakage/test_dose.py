"""A head pushed to encode the attribute encodes it more; the correlation with unfairness is over whole strengths."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from biascxr.containers import Attribute
from biascxr.errors import InputError
from biascxr.leakage.dependence.dose import _correlation, dose_response
from biascxr.mitigation.base import SplitData
from biascxr.phantom.leakage_cases import draw_case

SEX = Attribute("sex", ("F", "M"), True)


def splits(name: str, *, n_patients: int) -> list[SplitData]:
    case = draw_case(name, n_patients=n_patients, seed=0)
    made = []
    for split in ("train", "validation", "test"):
        rows = case.rows(split)
        table = pd.DataFrame({"sex": np.array(["F", "M"], object)[case.codes[rows]]})
        ids = rows.astype(str)
        made.append(SplitData(split, case.vectors[rows], case.labels[rows], table, case.patient_id[rows], ("a", "b", "c"), ids))
    return made


def test_the_correlation_is_scipys_and_its_p_value_permutes_strengths_whole():
    rng = np.random.default_rng(0)
    encoding = np.linspace(0.5, 0.9, 5)[:, None] + 0.01 * rng.normal(size=(5, 3))
    made = np.stack([encoding, encoding**2], axis=-1)
    found = _correlation(made, 999, 0.95, 0)
    assert found["value"] == pytest.approx(1.0) and found["n"] == 15
    # 120 orders of five strengths; at most the one and its mirror image are as extreme: about 2 / 120 and not 1 / 1000.
    assert 0.003 < found["p_value"] < 0.04
    unrelated = np.stack([encoding, rng.normal(size=(5, 3))], axis=-1)
    found = _correlation(unrelated, 999, 0.95, 0)
    expected = stats.spearmanr(encoding.ravel(), unrelated[..., 1].ravel()).statistic
    assert found["value"] == pytest.approx(expected) and found["low"] < expected < found["high"] and found["p_value"] > 0.05
    few = _correlation(made[:3, :1], 99, 0.95, 0)  # one head per strength: a value, and no interval
    assert few["value"] == pytest.approx(1.0) and np.isnan(few["low"]) and few["n"] == 3


def test_strengths_must_span_zero():
    with pytest.raises(InputError, match="strengths must be three or more, 0 among them"):
        dose_response(*splits("absent", n_patients=60), attribute=SEX, strengths=(1.0, 2.0, 3.0), seed=0)


@pytest.mark.slow
def test_encoding_rises_with_its_strength():
    parts = splits("unequal_prevalence", n_patients=800)
    settings = {"strengths": (-1.0, 0.0, 1.0), "n_seeds": 1, "units": 16, "max_epochs": 5, "n_permutations": 99}
    table = dose_response(*parts, attribute=SEX, seed=0, **settings)
    encoding = table[table["measure"] == "encoding"]["value"].to_numpy()
    assert encoding[0] < encoding[1] < encoding[2] and encoding[2] - encoding[0] > 0.02
    assert (table[table["measure"] == "unfairness"]["value"] > 0).all()
    correlation = table[table["measure"] == "spearman"].iloc[0]
    assert correlation["n"] == 3 and set(table["evidence"]) == {"dose_response"}
