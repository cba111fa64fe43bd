"""Each mistake that STYLE.md lists under "Seen in others", as a test that would catch it in the audit.

Caches keyed by file name are caught by tests/test_run_folder.py, unpickling and files of thousands of lines by
tests/test_architecture.py, embeddings replaced by zeros by tests/embeddings/test_precomputed.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import true_positive_rate as fairlearn_tpr

from biascxr.audit import audit, fit_thresholds, parse_predictions
from biascxr.config import AuditConfig
from biascxr.containers import Attribute
from biascxr.errors import InputError
from biascxr.metrics import expected_calibration_error

CONFIG = AuditConfig(n_replicates=60, n_permutations=60)
SEX = Attribute("sex", ("F", "M"), True)


def cell(table: pd.DataFrame, **keys) -> pd.Series:
    for name, value in keys.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_thresholds_fitted_on_the_rows_they_are_judged_on(random_predictions):
    predictions = random_predictions(0)
    points = fit_thresholds(predictions, "youden")
    with pytest.raises(InputError, match="patients are among those"):
        points.decide(predictions)
    one_patient_more = predictions.rows(np.arange(2))  # a single shared patient is enough
    with pytest.raises(InputError, match="1 of 1 patients"):
        points.decide(one_patient_more)


def test_a_bootstrap_over_images_when_a_patient_has_many(make_predictions):
    """Ten identical images of each patient say no more than one: the interval of a rate must not shrink by sqrt(10)."""
    rng = np.random.default_rng(0)
    y = np.ones((80, 1))
    y[::2] = 0
    decisions = (rng.random((80, 1)) < 0.6).astype(float)
    sex = np.array(["F", "M"])[(np.arange(80) // 2) % 2]
    one = make_predictions(y, decisions, decisions=decisions, attributes=(SEX,), sex=sex)
    copies = np.repeat(np.arange(80), 10)
    ten = make_predictions(
        y[copies],
        decisions[copies],
        decisions=decisions[copies],
        attributes=(SEX,),
        sex=sex[copies],
        patient_id=copies.astype(str),
    )
    for metric in ("TPR", "FPR", "AUROC"):
        rows = [cell(audit(p, CONFIG).metrics, label="finding 0", group="F", metric=metric) for p in (one, ten)]
        assert rows[0]["value"] == pytest.approx(rows[1]["value"])
        widths = [row["high"] - row["low"] for row in rows]
        assert widths[1] == pytest.approx(widths[0], rel=0.05)


def test_rows_duplicated_to_balance_a_test_set_and_resampled_as_new_patients(random_predictions):
    """Copies of a small group's rows are refused as what they are: the same images."""
    predictions = random_predictions(0)
    table = predictions.table.drop(columns=["recipe", "seed", "fold", "split", "study_id"])
    frame = table.assign(true_x=predictions.y_true[:, 0], prob_x=predictions.scores[:, 0])
    balanced = pd.concat([frame, frame[frame["race"] == "C"]])
    with pytest.raises(InputError, match="duplicates"):
        parse_predictions(balanced)
    # Weights instead: the adjusted interval knows that a group of few patients stays one of few patients.
    made = audit(replace(predictions, table=predictions.table.assign(view="AP")), replace(CONFIG, adjust=("view",)))
    for group in ("A", "B", "C"):
        plain, adjusted = (
            cell(t, label="finding 0", attribute="race", group=group, metric="TPR") for t in (made.metrics, made.adjusted)
        )
        assert adjusted["high"] - adjusted["low"] == pytest.approx(plain["high"] - plain["low"])
        assert adjusted["n_patients"] == plain["n_patients"]


def test_a_tpr_of_0_where_there_are_no_positives(make_predictions):
    """fairlearn says 0, and the gap is then the whole of the other group's TPR."""
    rng = np.random.default_rng(0)
    sex = np.array(["F", "M"])[np.arange(400) % 2]
    y = (rng.random((400, 1)) < 0.5).astype(float)
    y[sex == "M"] = 0
    decisions = (rng.random((400, 1)) < 0.7).astype(float)
    assert fairlearn_tpr(y[sex == "M", 0], decisions[sex == "M", 0]) == 0
    made = audit(make_predictions(y, 0.2 + 0.5 * decisions, decisions=decisions, attributes=(SEX,), sex=sex), CONFIG)
    row = cell(made.metrics, label="finding 0", group="M", metric="TPR")
    assert np.isnan(row["value"]) and np.isnan(row["difference"]) and row["n_positive"] == 0 and row["n"] == 200
    assert np.isnan(cell(made.gaps, label="finding 0", attribute="sex", metric="TPR")["gap"])


def test_calibration_bins_that_differ_between_groups(make_predictions):
    """Both groups are off by the same amount everywhere, at other scores: with bins of their own they would still look alike,
    with shared ones their errors are what each pair of score and rate says."""
    rng = np.random.default_rng(0)
    n = 4000
    sex = np.array(["F", "M"])[np.arange(n) % 2]
    score = np.where(sex == "F", rng.uniform(0.05, 0.30, n), rng.uniform(0.30, 0.55, n))
    y = (rng.random(n) < score + 0.2).astype(float)
    made = audit(make_predictions(y[:, None], score[:, None], attributes=(SEX,), sex=sex), CONFIG).metrics
    for group in ("F", "M"):
        own = sex == group
        value = cell(made, label="finding 0", group=group, metric="ECE")["value"]
        assert value == pytest.approx(expected_calibration_error(y[own], score[own].astype(np.float32)), abs=1e-6)
        edges = np.floor(score[own] * 15)  # by hand, on the bins of [0, 1] that everyone has
        by_hand = sum(abs((score[own] - y[own])[edges == b].sum()) for b in np.unique(edges)) / own.sum()
        assert value == pytest.approx(by_hand, abs=1e-6)


def test_a_missing_score_replaced_by_a_number():
    """A score that is not there takes its row out of that finding; it is never 0, 0.5 or the mean in any number."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"patient_id": np.arange(300).astype(str), "sex": rng.choice(["F", "M"], 300)})
    for label in ("x", "y"):
        frame[f"true_{label}"] = rng.integers(0, 2, 300)
        frame[f"prob_{label}"] = rng.random(300)
    holed = frame.copy()
    holed.loc[::3, "prob_x"] = np.nan
    kept = frame[~holed["prob_x"].isna()]
    found, expected = (cell(audit(f, CONFIG).metrics, label="x", attribute="overall", metric="AUROC") for f in (holed, kept))
    assert found["value"] == expected["value"] and found["n"] == expected["n"] == 200
