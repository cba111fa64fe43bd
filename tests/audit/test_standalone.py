"""The audit of anybody's table: where thresholds come from, what is audited, what is said about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from biascxr.audit import MACRO, OVERALL
from biascxr.audit.conclusions import changed_conclusions, conclusions
from biascxr.audit.standalone import audit_files
from biascxr.audit.underdiagnosis import DERIVED_NO_FINDING
from biascxr.errors import InputError
from biascxr.metrics import fixed_fpr_threshold
from biascxr.verb_config import StandaloneConfig

LABELS = ("Edema", "Mass", "Nodule")


def table(seed: int = 0, n_patients: int = 300, **columns) -> pd.DataFrame:
    """Predictions of 3 findings, two images a patient."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), 2)
    n = len(patient)
    frame = pd.DataFrame({
        "image_id": [f"i{i}" for i in range(n)],
        "patient_id": [f"p{p}" for p in patient],
        "sex": rng.choice(["F", "M"], n_patients)[patient],
        "age": rng.integers(1, 95, n_patients)[patient],
        "view": rng.choice(["AP", "PA"], n),
    })  # fmt: skip
    for label, prevalence in zip(LABELS, (0.3, 0.2, 0.4), strict=True):
        y = (rng.random(n) < prevalence).astype(int)
        frame[f"true_{label}"] = y
        frame[f"prob_{label}"] = 1 / (1 + np.exp(-(rng.normal(1.5 * y - 1, 1))))
    return frame.assign(**columns)


@pytest.fixture
def write(tmp_path):
    """Function `(frame, name) -> Path`."""

    def save(frame: pd.DataFrame, name: str = "preds.csv"):
        path = tmp_path / name
        frame.to_parquet(path, index=False) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
        return path

    return save


def config(path, **options) -> StandaloneConfig:
    return StandaloneConfig(predictions=path, **{"n_replicates": 60, "n_permutations": 60, "check_estimand": False} | options)


def test_without_calibration_rows_each_half_is_decided_by_the_other(write):
    frame = table()
    made = audit_files(config(write(frame), attributes=("sex",)))
    (predictions,) = made.predictions.values()
    assert len(predictions.table) == len(frame)
    thresholds = made.thresholds
    assert set(thresholds["fitted_on"]) == {"half 1 of the patients", "half 2 of the patients"}
    # A row's decision comes from the threshold of the half it is not in: fitted again here, on the other half's negatives.
    edema = thresholds[thresholds["label"] == "Edema"].set_index("fitted_on")["threshold"]
    assert edema.nunique() == 2
    decision = predictions.decisions[:, 0]
    score, y = frame["prob_Edema"].to_numpy(), frame["true_Edema"].to_numpy(float)
    by_which = {name: (score.astype(np.float32) >= np.float32(t)) == (decision == 1) for name, t in edema.items()}
    for name, agrees in by_which.items():
        other = by_which[next(n for n in by_which if n != name)]
        surely_here = agrees & ~other  # rows that only this threshold explains
        assert surely_here.any()
        fitted_on = frame.loc[~agrees, "patient_id"]  # the other threshold's rows
        assert not set(frame.loc[surely_here, "patient_id"]) & set(fitted_on)
    assert (agrees | other).all()
    assert "fitted on the other half" in made.operating_point and "FPR 0.2" in made.operating_point
    assert 0.1 < np.nanmean(decision[y == 0]) < 0.3


def test_the_calibration_split_decides_the_test_split(write):
    frame = table()
    is_test = frame["patient_id"].str[1:].astype(int) % 3 == 0
    frame["split"] = np.where(is_test, "test", "calibration")
    made = audit_files(config(write(frame), attributes=("sex",)))
    (predictions,) = made.predictions.values()
    assert set(predictions.table["image_id"]) == set(frame.loc[is_test, "image_id"])
    calibration = frame[~is_test]
    expected = fixed_fpr_threshold(calibration["true_Mass"].to_numpy(float), calibration["prob_Mass"].to_numpy(), fpr=0.2)
    row = made.thresholds.set_index("label").loc["Mass"]
    assert row["threshold"] == pytest.approx(expected, abs=1e-6) and row["fitted_on"] == "calibration"
    np.testing.assert_array_equal(predictions.decisions[:, 1], frame.loc[is_test, "prob_Mass"] >= expected)


def test_another_table_decides_and_shared_patients_are_refused(write):
    path = write(table())
    other = write(table(1).assign(patient_id=lambda f: "q" + f["patient_id"]), "calibration.parquet")
    made = audit_files(config(path, thresholds_from=other, attributes=("sex",), threshold_rule="youden"))
    assert set(made.thresholds["fitted_on"]) == {"other table"} and "rule youden" in made.operating_point
    with pytest.raises(InputError, match="300 of 300 patients are among those"):
        audit_files(config(path, thresholds_from=path, attributes=("sex",)))


def test_decisions_of_the_table_are_taken_as_they_are(write):
    frame = table()
    for label in LABELS:
        frame[f"decision_{label}"] = (frame[f"prob_{label}"] > 0.9).astype(int)
    made = audit_files(config(write(frame), attributes=("sex",)))
    (predictions,) = made.predictions.values()
    np.testing.assert_array_equal(predictions.decisions[:, :3], frame[[f"decision_{x}" for x in LABELS]])
    assert made.thresholds.empty and "decision_<label>" in made.operating_point
    nothing_flagged = (frame[[f"decision_{x}" for x in LABELS]] == 0).all(axis=1)
    np.testing.assert_array_equal(predictions.decisions[:, 3], nothing_flagged)


def test_at_one_half_nothing_is_fitted(write):
    frame = table()
    made = audit_files(config(write(frame), attributes=("sex",), threshold_rule="0.5"))
    (predictions,) = made.predictions.values()
    np.testing.assert_array_equal(predictions.decisions[:, 0], frame["prob_Edema"] >= 0.5)


def test_thresholds_per_group_are_drawn_towards_everyones(write):
    made = audit_files(config(write(table()), attributes=("sex",), threshold_attribute="sex"))
    own = made.thresholds[made.thresholds["attribute"] == "sex"]
    everyone = made.thresholds[made.thresholds["attribute"] == ""].set_index(["fitted_on", "label"])["threshold"]
    for row in own.itertuples():
        low, high = sorted((row.own_threshold, everyone[row.fitted_on, row.label]))
        assert low <= row.threshold <= high


def test_point_estimates_are_scikit_learns_on_the_files_own_digits(write):
    frame = table()
    metrics = audit_files(config(write(frame), attributes=("sex",))).result.metrics
    own = metrics[(metrics["metric"] == "AUROC") & (metrics["attribute"] == OVERALL)].set_index("label")["value"]
    for label in LABELS:
        expected = roc_auc_score(frame[f"true_{label}"], frame[f"prob_{label}"])
        assert own[label] == pytest.approx(expected, abs=1e-12)


def test_the_derived_no_finding_is_audited_and_enters_no_average(write):
    frame = table()
    metrics = audit_files(config(write(frame), attributes=("sex",))).result.metrics
    own = metrics[(metrics["metric"] == "AUROC") & (metrics["attribute"] == OVERALL)].set_index("label")
    no_finding = (frame[[f"true_{x}" for x in LABELS]].sum(axis=1) == 0).astype(int)
    score = 1 - frame[[f"prob_{x}" for x in LABELS]].max(axis=1)
    assert own.loc[DERIVED_NO_FINDING, "value"] == pytest.approx(roc_auc_score(no_finding, score), abs=1e-12)
    assert own.loc[MACRO, "value"] == pytest.approx(own.loc[list(LABELS), "value"].mean(), abs=1e-12)
    assert own.loc[MACRO, "n_labels"] == 3
    renamed = frame.rename(columns={"true_Mass": "true_No Finding", "prob_Mass": "prob_No Finding"})
    labels = audit_files(config(write(renamed), attributes=("sex",))).result.metrics["label"].unique()
    assert DERIVED_NO_FINDING not in labels


def test_a_baseline_is_matched_by_image_and_compared(write):
    frame = table()
    better = frame.copy()
    for label in LABELS:  # moved towards the truth
        better[f"prob_{label}"] = 0.7 * frame[f"prob_{label}"] + 0.3 * frame[f"true_{label}"]
    path = write(better.sample(frac=1, random_state=0), "better.csv")
    made = audit_files(config(path, baseline=write(frame, "plain.csv"), attributes=("sex",)))
    assert list(made.predictions) == ["plain", "better"] and made.subject == "better"
    macro = made.result.comparisons[(made.result.comparisons["label"] == MACRO)]
    row = macro[(macro["attribute"] == OVERALL) & (macro["metric"] == "AUROC")].iloc[0]
    assert row["recipe"] == "better" and row["verdict"] == "better" and row["low"] > 0
    aurocs = [np.mean([roc_auc_score(f[f"true_{x}"], f[f"prob_{x}"]) for x in LABELS]) for f in (frame, better)]
    assert row["change"] == pytest.approx(aurocs[1] - aurocs[0], abs=1e-12)
    with pytest.raises(InputError, match="different images"):
        audit_files(config(path, baseline=write(frame.iloc[:100], "fewer.csv"), attributes=("sex",)))


def test_the_file_against_itself_has_changed_nothing(write):
    frame = table()
    made = audit_files(config(write(frame, "a.csv"), baseline=write(frame, "b.csv"), attributes=("sex",)))
    assert (made.result.comparisons["change"].dropna() == 0).all()
    assert (made.result.comparisons["verdict"] == "not enough evidence").all()
    assert (made.result.comparisons["levelling"] == "").all()


def test_several_recipes_in_one_file_are_audited_side_by_side(write):
    frame = pd.concat([table(0).assign(recipe="one"), table(0).assign(recipe="two")])
    made = audit_files(config(write(frame), attributes=("sex",)))
    assert list(made.predictions) == ["one", "two"] and made.subject == "one"
    assert set(made.result.metrics["recipe"]) == {"one", "two"} and set(made.thresholds["recipe"]) == {"one", "two"}


def test_studies_are_audited_as_the_mean_of_their_images(write):
    frame = table(study_id=lambda f: f["patient_id"])
    made = audit_files(config(write(frame), attributes=("sex",), unit="study", check_estimand=True))
    (predictions,) = made.predictions.values()
    assert len(predictions.table) == 300
    expected = frame.groupby("patient_id", sort=False)["prob_Edema"].mean()
    np.testing.assert_allclose(np.sort(predictions.scores[:, 0]), np.sort(expected), atol=1e-12)


def test_the_other_estimands_are_told(write):
    frame = table(study_id=lambda f: f["patient_id"])
    made = audit_files(config(write(frame), attributes=("sex",), check_estimand=True))
    assert len(made.sensitivity) == 2
    assert "patient weighed the same" in made.sensitivity[0] and "studies" in made.sensitivity[1]
    assert all("conclusions" in line for line in made.sensitivity)
    assert "600 rows of 300 patients" in made.result.estimand


def test_conclusions_that_differ_are_counted_and_named(write):
    result = audit_files(config(write(table()), attributes=("sex",))).result
    assert changed_conclusions(result, result, 0.95).startswith("the same")
    tests = result.tests.copy()
    changed = tests.index[tests["p_adjusted"].notna()][0]
    is_open = tests.loc[changed, "p_adjusted"] >= 0.05
    tests.loc[changed, "p_adjusted"] = 0.001 if is_open else 0.9
    text = changed_conclusions(result, replace(result, tests=tests), 0.95)
    assert text.startswith(f"1 of {len(conclusions(result, 0.95))} conclusions would change")
    assert ("no claim here, unequal then" if is_open else "unequal here, no claim then") in text


def test_adjustment_needs_no_attribute_of_that_name(write):
    made = audit_files(config(write(table()), attributes=("sex", "age_group"), adjust=("view", "age_group")))
    assert set(made.result.adjusted["adjusted_for"]) == {"view, age_group", "view"}
    (predictions,) = made.predictions.values()
    assert [a.name for a in predictions.attributes] == ["sex", "age_group"]


def test_the_same_files_and_seed_give_the_same_tables(write):
    path = write(table())
    first, second = (audit_files(config(path, attributes=("sex",))) for _ in range(2))
    pd.testing.assert_frame_equal(first.result.metrics, second.result.metrics)
    pd.testing.assert_frame_equal(first.result.tests, second.result.tests)


def test_lists_may_be_separated_by_commas(write):
    made = config("x.csv", attributes=("sex, age_group",), labels=("Mass,Nodule", "Edema"), metrics=("AUROC,TPR",))
    assert made.attributes == ("sex", "age_group") and made.labels == ("Mass", "Nodule", "Edema")
    assert made.metrics == ("AUROC", "TPR")


def test_one_patient_cannot_decide_herself(write):
    frame = table(n_patients=2)
    frame["patient_id"] = "same"
    frame["true_Edema"], frame["true_Mass"], frame["true_Nodule"] = [[0, 1, 0, 1]] * 3
    with pytest.raises(InputError, match="one patient"):
        audit_files(config(write(frame.assign(sex=["F", "F", "M", "M"])), attributes=("sex",)))


@pytest.mark.slow
def test_the_real_predictions_of_22433_radiographs(nih_folder):
    path = nih_folder / "chexnet_predictions.csv.gz"
    made = audit_files(StandaloneConfig(predictions=path, attributes=("sex,age_group",), check_estimand=False))
    frame = pd.read_csv(path)
    metrics = made.result.metrics
    own = metrics[(metrics["metric"] == "AUROC") & (metrics["attribute"] == OVERALL)].set_index("label")
    labels = [c.removeprefix("true_") for c in frame if c.startswith("true_")]
    assert len(labels) == 14
    for label in labels:
        assert own.loc[label, "value"] == pytest.approx(roc_auc_score(frame[f"true_{label}"], frame[f"prob_{label}"]), abs=1e-9)
    for sex in ("F", "M"):
        rows = frame["sex"] == sex
        value = metrics[(metrics["metric"] == "AUROC") & (metrics["group"] == sex)].set_index("label")["value"]
        for label in labels:
            expected = roc_auc_score(frame.loc[rows, f"true_{label}"], frame.loc[rows, f"prob_{label}"])
            assert value[label] == pytest.approx(expected, abs=1e-9)
    assert own["n"].max() == 22433 * 14 and own.loc["Hernia", "n_patients"] == 6187
    assert made.warnings == () and any("209 patients" in note for note in made.notes)
    # At 0.5 this model flags almost nobody with pneumonia.
    positive = frame["true_Pneumonia"] == 1
    assert (frame.loc[positive, "prob_Pneumonia"] >= 0.5).mean() < 0.02


def test_rows_that_may_have_been_trained_on_are_audited_with_a_warning(write):
    made = audit_files(config(write(table(split="train")), attributes=("sex",)))
    assert any("no row is of split 'test' (there are train)" in warning for warning in made.warnings)
    assert audit_files(config(write(table(split="test")), attributes=("sex",))).warnings == ()


def test_patients_in_two_splits_are_a_warning(write):
    frame = table()
    frame["split"] = np.where(np.arange(len(frame)) % 2, "test", "train")
    assert any("300 patients are in more than one split" in w for w in audit_files(config(write(frame))).warnings)


def test_what_is_left_out_of_the_table_for_thresholds_is_said_too(write):
    other = table(1).assign(patient_id=lambda f: "q" + f["patient_id"])
    other.loc[0, [f"prob_{x}" for x in LABELS]] = np.nan
    made = audit_files(config(write(table()), thresholds_from=write(other, "calibration.csv"), attributes=("sex",)))
    assert any(note.startswith("calibration.csv: ") and "1 " in note for note in made.notes)


def test_a_baseline_of_the_same_name_is_told_apart_without_naming_a_folder(write, tmp_path):
    (tmp_path / "secret").mkdir()
    baseline = write(table(), "secret/preds.csv")
    made = audit_files(config(write(table()), baseline=baseline, attributes=("sex",)))
    assert list(made.predictions) == ["preds", "preds (new)"]
