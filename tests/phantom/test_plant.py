"""Bias planted on rows: the truth is kept, only the group and the splits it is about change, more strength takes more."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biascxr.cohort import relabel
from biascxr.containers import Attribute, Cohort
from biascxr.errors import InputError
from biascxr.phantom.mechanisms import MECHANISMS
from biascxr.phantom.plant import Planting, plant_on_rows

NAMES = ("Cardiomegaly", "Edema", "No Finding", "Support Devices")


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    rng = np.random.default_rng(0)
    n_patients = 900
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    study = np.arange(len(patient)) - (rng.random(len(patient)) < 0.2) * (np.diff(patient, prepend=-1) == 0)
    n = len(patient)
    of_study = rng.random((n, 4))[study]
    labels = (of_study < [0.4, 0.25, 0, 0.3]).astype(np.float32)
    labels[:, 2] = ~(labels[:, :2] == 1).any(axis=1)
    labels[of_study[:, 1] > 0.95, 1] = np.nan
    recorded = labels.copy()
    table = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)], "study_id": [f"s{k}" for k in study], "patient_id": patient.astype(str),
            "path": [f"{k}.png" for k in range(n)], "view": "PA", "age": 50.0,
            "split": rng.choice(["train", "validation", "calibration", "test"], n_patients, p=[0.5, 0.1, 0.1, 0.3])[patient],
            "sex": rng.choice(["F", "M", "unknown"], n_patients, p=[0.5, 0.4, 0.1])[patient],
        }
    )  # fmt: skip
    attributes = (Attribute("sex", ("F", "M"), True),)
    return Cohort(table, labels, NAMES, attributes, "generic", "image", "/nowhere", {"excluded": {"x": 2}}, recorded)


def ids(cohort):
    return set(cohort.table["image_id"])


def in_group(cohort, group="F"):
    return (cohort.table["sex"] == group).to_numpy()


@pytest.mark.parametrize("mechanism", MECHANISMS)
class TestEveryMechanism:
    def test_strength_zero_changes_nothing_but_keeps_the_truth(self, cohort, mechanism):
        made = plant_on_rows(cohort, (f"{mechanism}:0:sex=F",), seed=0)
        pd.testing.assert_frame_equal(made.table, cohort.table)
        np.testing.assert_array_equal(made.labels, cohort.labels)
        np.testing.assert_array_equal(made.reference_labels, cohort.labels)

    def test_the_other_groups_keep_rows_labels_and_images(self, cohort, mechanism):
        made = plant_on_rows(cohort, (f"{mechanism}:0.7:sex=F",), seed=0)
        others, before = (
            made.rows(made.table["image_id"][~in_group(made)]),
            cohort.rows(cohort.table["image_id"][~in_group(cohort)]),
        )
        pd.testing.assert_frame_equal(others.table[list(cohort.table)], before.table)
        np.testing.assert_array_equal(others.labels, before.labels)
        assert not others.table.get("marker", pd.Series(False)).any()
        assert not others.table.get("degradation", pd.Series(0.0)).any()

    def test_the_truth_is_the_labels_as_they_were(self, cohort, mechanism):
        made = plant_on_rows(cohort, (f"{mechanism}:0.7:sex=F",), seed=0)
        np.testing.assert_array_equal(made.reference_labels, cohort.rows(made.table["image_id"]).labels)

    def test_same_seed_same_rows_and_more_strength_takes_the_same_and_more(self, cohort, mechanism):
        weak, again, strong = (plant_on_rows(cohort, (f"{mechanism}:{s}:sex=F",), seed=3) for s in (0.3, 0.3, 0.6))
        pd.testing.assert_frame_equal(weak.table, again.table)
        assert ids(strong) <= ids(weak)
        shared = weak.rows(strong.table["image_id"])
        assert (np.nan_to_num(strong.labels[:, :2]) <= np.nan_to_num(shared.labels[:, :2])).all()

    def test_something_is_done_and_counted(self, cohort, mechanism):
        (done,) = plant_on_rows(cohort, (f"{mechanism}:0.7:sex=F",), seed=0).accounting["planted"]
        assert (done["mechanism"], done["group"]) == (mechanism, "F")
        counts = {k: v for k, v in done.items() if k.split()[0] in ("images", "findings")}
        assert counts and all(v > 0 for v in counts.values())


def test_annotation_records_a_share_of_the_groups_positives_as_absent(cohort):
    made = plant_on_rows(cohort, ("annotation:0.3:sex=F",), seed=0)
    assert ids(made) == ids(cohort)
    positives = (cohort.labels[:, :2] == 1) & in_group(cohort)[:, None]
    lost = positives & (made.labels[:, :2] == 0)
    share, n = lost.sum() / positives.sum(), positives.sum()
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / n * 1.5)
    assert (made.recorded[:, :2][lost] == 0).all()
    # Where everything was overlooked, nothing is recorded as found.
    none_left = ~(made.labels[:, :2] == 1).any(axis=1)
    np.testing.assert_array_equal(made.labels[:, 2], none_left)
    np.testing.assert_array_equal(made.labels[:, 3], cohort.labels[:, 3])


def test_images_of_one_study_are_overlooked_together(cohort):
    made = plant_on_rows(cohort, ("annotation:0.5:sex=F",), seed=0)
    by_study = pd.DataFrame(made.labels[:, :2]).groupby(made.table["study_id"].to_numpy()).nunique()
    assert by_study.to_numpy().max() == 1


def test_annotation_of_one_finding_leaves_the_others(cohort):
    made = plant_on_rows(cohort, ("annotation:0.5:sex=F:Edema",), seed=0)
    np.testing.assert_array_equal(made.labels[:, [0, 3]], cohort.labels[:, [0, 3]])
    assert np.nansum(made.labels[:, 1]) < np.nansum(cohort.labels[:, 1])


def test_prevalence_leaves_out_films_with_the_finding_from_every_split(cohort):
    made = plant_on_rows(cohort, ("prevalence:1:sex=F:Edema",), seed=0)
    assert np.nansum(made.labels[in_group(made), 1]) == 0
    assert np.nansum(made.labels[~in_group(made), 1]) == np.nansum(cohort.labels[~in_group(cohort), 1])
    reason = "planted: prevalence in sex F"
    assert made.accounting["excluded"] == {"x": 2, reason: len(cohort) - len(made)}
    assert made.accounting["rows_selected"] == len(made)


@pytest.mark.parametrize("mechanism", ["selection", "under_representation"])
def test_what_is_judged_stays_whole(cohort, mechanism):
    made = plant_on_rows(cohort, (f"{mechanism}:0.8:sex=F",), seed=0)
    gone = cohort.rows(np.array(sorted(ids(cohort) - ids(made))))
    assert len(gone) > 50 and (gone.table["sex"] == "F").all() and (gone.table["split"] != "test").all()


def test_selection_leaves_out_the_sick_and_under_representation_whole_patients(cohort):
    made = plant_on_rows(cohort, ("selection:1:sex=F",), seed=0)
    learned = in_group(made) & (made.table["split"] != "test").to_numpy()
    assert not (made.labels[learned][:, :2] == 1).any()
    made = plant_on_rows(cohort, ("under_representation:0.5:sex=F",), seed=0)
    gone = ids(cohort) - ids(made)
    patients = cohort.table[cohort.table["image_id"].isin(gone)]["patient_id"]
    assert not made.table["patient_id"].isin(patients).any()


def test_presentation_blurs_the_group_whole_so_that_blur_tells_no_label(cohort):
    made = plant_on_rows(cohort, ("presentation:0.6:sex=F",), seed=0)
    np.testing.assert_array_equal(made.table["degradation"], np.where(in_group(made), 0.6, 0.0))


def test_the_marker_goes_with_the_finding_where_one_learns_and_with_nothing_where_one_is_judged(cohort):
    made = plant_on_rows(cohort, ("acquisition:0.8:sex=F:Edema",), seed=0)
    has, marked = made.labels[:, 1] == 1, made.table["marker"].to_numpy()
    test, group = (made.table["split"] == "test").to_numpy(), in_group(made)
    assert abs(marked[~test & group & has].mean() - 0.8) < 0.1
    share = marked[test & group].mean()
    assert abs(share - 0.8 * has[~test & group].mean()) < 0.06
    assert abs(marked[test & group & has].mean() - marked[test & group & ~has].mean()) < 0.12


def test_acquisition_takes_the_most_frequent_finding_where_none_is_named(cohort):
    made = plant_on_rows(cohort, ("acquisition:1:sex=F",), seed=0)
    learned = in_group(made) & (made.table["split"] != "test").to_numpy()
    assert (made.table["marker"].to_numpy() == (made.labels[:, 0] == 1))[learned].mean() > 0.9


def test_two_biases_are_both_there(cohort):
    made = plant_on_rows(cohort, ("annotation:0.5:sex=F", "under_representation:0.5:sex=M"), seed=0)
    assert [p["mechanism"] for p in made.accounting["planted"]] == ["annotation", "under_representation"]
    assert (made.labels[:, :2] < made.reference_labels[:, :2]).any()
    assert len(made) < len(cohort)


def test_a_cohort_with_planted_bias_survives_its_file(cohort, tmp_path):
    made = plant_on_rows(cohort, ("annotation:0.5:sex=F", "acquisition:0.5:sex=M"), seed=0)
    made.save(tmp_path)
    again = Cohort.load(tmp_path)
    pd.testing.assert_frame_equal(again.table, made.table)
    for name in ("labels", "recorded", "reference_labels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(made, name))
    assert again.accounting == made.accounting


def test_images_of_a_study_leave_together(cohort):
    for mechanism in ("selection", "prevalence"):
        made = plant_on_rows(cohort, (f"{mechanism}:0.5:sex=F",), seed=0)
        split_up = set(made.table["study_id"]) & set(cohort.table["study_id"][~cohort.table["image_id"].isin(ids(made))])
        assert not split_up


def test_the_stronger_of_two_blurs_stays(cohort):
    made = plant_on_rows(cohort, ("presentation:0.6:sex=F", "presentation:0.2:sex=F"), seed=0)
    assert set(made.table["degradation"][in_group(made)]) == {0.6}


def test_two_plantings_take_rows_independently(cohort):
    made = plant_on_rows(cohort, ("annotation:0.5:sex=F:Edema", "annotation:0.5:sex=F:Cardiomegaly"), seed=0)
    both = (cohort.labels[:, :2] == 1).all(axis=1) & in_group(cohort)
    edema, cardiomegaly = (made.labels[both, i] == 0 for i in (1, 0))
    assert 0.1 < (edema & cardiomegaly).mean() < 0.4


def test_known_truth_stays_the_truth(cohort):
    known = np.full(cohort.labels.shape, np.nan, np.float32)
    known[:50, 0] = 1 - np.nan_to_num(cohort.labels[:50, 0])
    made = plant_on_rows(replace(cohort, reference_labels=known), ("annotation:0.5:sex=F",), seed=0)
    np.testing.assert_array_equal(made.reference_labels[:50, 0], known[:50, 0])
    np.testing.assert_array_equal(made.reference_labels[50:], cohort.labels[50:])


def test_no_finding_is_recorded_alike_before_and_after_the_policies(cohort):
    recorded = cohort.recorded.copy()
    recorded[::7, 0] = -1
    labels = np.where(recorded == -1, 0, recorded).astype(np.float32)
    labels[:, 2] = recorded[:, 2] = ~np.isin(recorded[:, :2], (1, -1)).any(axis=1)
    accounting = {"blank_policy": "ignore", "uncertain_policy": "zeros"}
    made = plant_on_rows(
        replace(cohort, labels=labels, recorded=recorded, accounting=accounting), ("annotation:1:sex=F",), seed=0
    )
    np.testing.assert_array_equal(relabel(made, uncertain="zeros").labels, made.labels)
    assert (made.recorded[in_group(made), 2] == ~(recorded[in_group(made), :2] == -1).any(axis=1)).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("annotation", "is not of the form MECHANISM:STRENGTH:ATTRIBUTE=GROUP"),
        ("annotation:0.3:sex", "is not of the form"),
        ("annotate:0.3:sex=F", "Did you mean 'annotation'"),
        ("annotation:much:sex=F", "the strength must be a fraction from 0 to 1; got 'much'"),
        ("annotation:1.5:sex=F", "the strength must be a fraction"),
        ("annotation:0.3:gender=F", "Unknown attribute 'gender'"),
        ("annotation:0.3:sex=W", "Unknown group of sex 'W'. Known: F, M"),
        ("annotation:0.3:sex=F:Oedema", "Did you mean 'Edema'"),
        ("annotation:0.3:sex=F:No Finding", "No Finding is the absence of all"),
    ],
)
def test_what_cannot_be_planted_is_named(cohort, text, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        plant_on_rows(cohort, (text,), seed=0)


@pytest.mark.parametrize("mechanism", ["presentation", "acquisition"])
def test_vectors_cannot_be_blurred_or_marked(cohort, mechanism):
    with pytest.raises(InputError, match="this table points to precomputed vectors"):
        plant_on_rows(replace(cohort, content="vector"), (f"{mechanism}:0.5:sex=F",), seed=0)


def test_a_finding_with_a_colon_less_group_is_parsed():
    assert Planting.parse("annotation:0.3:race=BLACK/AFRICAN AMERICAN:Lung Opacity") == Planting(
        "annotation", 0.3, "race", "BLACK/AFRICAN AMERICAN", "Lung Opacity"
    )
