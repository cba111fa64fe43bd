"""Other labels, the same predictions: reference labels and policies for uncertain labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biascxr.audit import AuditResult, audit
from biascxr.cohort import relabel
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Cohort, Predictions
from biascxr.label_checks import audit_on_reference, check_label_policy, with_labels

CONFIG = AuditConfig(metrics=("AUROC", "TPR", "FPR"), n_replicates=50, n_permutations=100)
SEX = Attribute("sex", ("F", "M"), True)


def made_up(*, uncertain_share: float = 0.0, overlooked: float = 0.0, n: int = 1500):
    """Test rows whose scores follow the truth; of the women's positives a share is recorded as uncertain or absent."""
    rng = np.random.default_rng(0)
    truth = (rng.random((n, 2)) < 0.4).astype(np.float32)
    sex = rng.choice(["F", "M"], n)
    scores = np.clip(rng.normal(0.3 + 0.4 * truth, 0.15), 0, 1)
    recorded = truth.copy()
    draw = rng.random(truth.shape)
    of_women = (truth == 1) & (sex == "F")[:, None]
    recorded[of_women & (draw < uncertain_share)] = -1
    recorded[of_women & (draw > 1 - overlooked)] = 0
    table = pd.DataFrame({"image_id": [f"i{k}" for k in range(n)], "sex": sex, "split": "test"})
    table = table.assign(study_id=table["image_id"], patient_id=table["image_id"], path="x.png", view="PA", age=50.0)
    accounting = {"blank_policy": "zeros", "uncertain_policy": "zeros"}
    labels = np.where(recorded == 1, 1, 0).astype(np.float32)
    cohort = Cohort(table, labels, ("Edema", "Mass"), (SEX,), "generic", "image", "/", accounting, recorded, truth)
    own = table[["image_id", "study_id", "patient_id", "split", "sex"]].assign(recipe="erm", seed=0, fold=0)
    predictions = Predictions(own, labels, scores, ("Edema", "Mass"), (SEX,), (scores > 0.5).astype(np.float32))
    return cohort, predictions


def difference(result: AuditResult, metric: str) -> pd.Series:
    m = result.metrics
    return m[(m["label"] == "macro") & (m["group"] == "F") & (m["metric"] == metric)].iloc[0]


def test_relabelling_changes_uncertain_labels_only():
    cohort, _ = made_up(uncertain_share=0.3)
    uncertain = cohort.recorded == -1
    for policy, value in (("zeros", 0.0), ("ones", 1.0), ("ignore", np.nan)):
        labels = relabel(cohort, uncertain=policy).labels
        np.testing.assert_array_equal(labels[uncertain], value)
        np.testing.assert_array_equal(labels[~uncertain], cohort.labels[~uncertain])
    with pytest.raises(ValueError, match=r"needs Cohort\.recorded"):
        relabel(replace(cohort, recorded=None), uncertain="ones")


def test_labels_follow_the_images_whatever_the_order():
    cohort, predictions = made_up(overlooked=0.3)
    order = np.random.default_rng(1).permutation(len(cohort))
    judged = with_labels(predictions.rows(order), cohort, cohort.reference_labels, np.array([False, True]))
    np.testing.assert_array_equal(judged.y_true[:, 0], cohort.reference_labels[order, 1])
    np.testing.assert_array_equal(judged.scores[:, 0], predictions.scores[order, 1])
    assert judged.label_names == ("Mass",)


def test_overlooked_findings_are_seen_with_reference_labels_only(tmp_path):
    cohort, predictions = made_up(overlooked=0.5)
    audit([predictions], CONFIG).save(tmp_path)
    audit_on_reference(cohort, [predictions], CONFIG, tmp_path, seed=0)
    on_truth, on_recorded = (AuditResult.load(tmp_path / place) for place in ("reference", "reference/recorded"))
    # Scores follow the truth alike for both sexes; recorded as absent, the women's overlooked findings look like false alarms.
    assert difference(on_truth, "FPR")["difference_low"] < 0 < difference(on_truth, "FPR")["difference_high"]
    assert difference(on_recorded, "FPR")["difference_low"] > 0.05


def test_without_reference_labels_there_is_no_second_audit(tmp_path):
    cohort, predictions = made_up()
    audit_on_reference(replace(cohort, reference_labels=None), [predictions], CONFIG, tmp_path, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_rows_and_findings_without_reference_are_left_out(tmp_path):
    cohort, predictions = made_up(overlooked=0.3)
    reference = cohort.reference_labels.copy()
    reference[500:], reference[:, 1] = np.nan, 1
    audit_on_reference(replace(cohort, reference_labels=reference), [predictions], CONFIG, tmp_path, seed=0)
    metrics = AuditResult.load(tmp_path / "reference").metrics
    assert set(metrics["label"]) <= {"Edema", "macro", "micro"}
    assert metrics[(metrics["attribute"] == "overall") & (metrics["label"] == "Edema")]["n_patients"].max() <= 500
    alike = AuditResult.load(tmp_path / "reference" / "recorded").metrics
    assert alike["label"].tolist() == metrics["label"].tolist() and alike["n"].tolist() == metrics["n"].tolist()


class TestLabelPolicy:
    def check(self, tmp_path, **faults):
        cohort, predictions = made_up(**faults)
        judged = {policy: [predictions] for policy in ("zeros", "ones", "ignore")}
        check_label_policy(cohort, judged, CONFIG, tmp_path, seed=0)
        return pd.read_csv(tmp_path / "label_policy.csv")

    def test_without_uncertain_labels_there_is_nothing_to_compare(self, tmp_path):
        table = self.check(tmp_path)
        assert table.empty and "survives" in table

    def test_a_conclusion_that_hangs_on_the_policy_is_found(self, tmp_path):
        table = self.check(tmp_path, uncertain_share=0.6)
        row = table[(table["label"] == "macro") & (table["group"] == "F") & (table["metric"] == "FPR")].iloc[0]
        # Read as absent, the women's uncertain findings are false alarms; read as present or left out, they are none.
        assert (row["zeros"], row["ones"], row["ignore"]) == ("higher", "no claim", "no claim")
        assert not row["survives"]
