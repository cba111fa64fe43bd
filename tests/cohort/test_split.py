"""Splits: a patient is in one part only; parts are near their shares; alike patients are divided alike."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biascxr.cohort.split import MIN_TEST_PATIENTS, chosen_source, draw_patients, split_cohort
from biascxr.config import SPLITS
from biascxr.errors import InputError

FRACTIONS = (0.6, 0.1, 0.1, 0.2)


def made_up(seed: int, n_patients: int, max_images: int = 4):
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, max_images + 1, n_patients))
    table = pd.DataFrame(
        {
            "patient_id": [f"p{p}" for p in patient],
            "sex": rng.choice(["F", "M"], n_patients)[patient],
            "race": rng.choice(["A", "B", "C"], n_patients, p=[0.7, 0.2, 0.1])[patient],
            "split": "",
        }
    )
    labels = (rng.random((len(table), 3)) < [0.5, 0.2, 0.05]).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    return table, labels


def split(table, labels, source="random", fractions=FRACTIONS, seed=0):
    source, notes = chosen_source(table, source)
    attributes = tuple(name for name in ("race", "sex") if name in table)
    assigned, more = split_cohort(table, labels, source=source, attributes=attributes, fractions=fractions, seed=seed)
    return assigned, notes + more


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_patients=st.integers(30, 150),
    weights=st.tuples(*[st.integers(2, 10)] * 4),
)
def test_patients_never_straddle_and_parts_are_within_a_patient_or_two_of_their_shares(seed, n_patients, weights):
    table, labels = made_up(seed, n_patients)
    fractions = tuple(w / sum(weights) for w in weights)
    assigned, _ = split(table, labels, fractions=fractions, seed=seed)
    parts = table.assign(split=assigned).groupby("patient_id")["split"]
    assert (parts.nunique() == 1).all()
    sizes = parts.first().value_counts().reindex(SPLITS, fill_value=0)
    assert np.abs(sizes.to_numpy() - n_patients * np.array(fractions)).max() < 2


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_rarest_finding_is_divided_by_the_shares(seed):
    table, labels = made_up(seed, 400, max_images=1)
    assigned, _ = split(table, labels, seed=seed)
    rarest = labels[:, int(np.argmin(np.nansum(labels, axis=0)))] == 1
    counts = pd.Series(assigned[rarest]).value_counts().reindex(SPLITS, fill_value=0).to_numpy()
    assert np.abs(counts - rarest.sum() * np.array(FRACTIONS)).max() < 2.5


def test_groups_are_divided_more_evenly_than_chance_would():
    table, labels = made_up(1, 600, max_images=1)
    stratified, at_random = [], []
    for seed in range(20):
        assigned, _ = split(table, labels[:, :1], seed=seed)
        shuffled = np.random.default_rng(seed).permutation(assigned)
        for parts, found in ((assigned, stratified), (shuffled, at_random)):
            shares = [((table["race"] == "C") & (parts == part)).sum() / (parts == part).sum() for part in SPLITS]
            found.append(np.std(shares))
    assert np.mean(stratified) < 0.6 * np.mean(at_random)


def test_same_seed_same_split_and_another_seed_another():
    table, labels = made_up(0, 100)
    one, two, other = (split(table, labels, seed=s)[0] for s in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_a_split_does_not_depend_on_the_order_of_the_rows():
    table, labels = made_up(0, 60)
    order = np.random.default_rng(0).permutation(len(table))
    table, labels = table.drop(columns=["sex", "race"]), labels
    straight = draw_patients(table, labels, (), FRACTIONS, 0)
    turned = draw_patients(table.iloc[order].reset_index(drop=True), labels[order], (), FRACTIONS, 0)
    pd.testing.assert_series_equal(straight.sort_index(), turned.sort_index())


def test_too_few_patients_is_an_error_that_says_how_many():
    table, labels = made_up(0, 3)
    with pytest.raises(InputError, match=r"are empty: 3 patients are too few for the shares \(0\.6"):
        split(table, labels)


class TestTheTablesOwnSplit:
    def given(self, n_patients=40, names=("train", "validate", "calibration", "test")):
        table, labels = made_up(0, n_patients)
        by_patient = {p: names[i % len(names)] for i, p in enumerate(table["patient_id"].unique())}
        return table.assign(split=table["patient_id"].map(by_patient)), labels

    def test_is_used_when_asked_for_and_warns_of_little_power(self):
        table, labels = self.given()
        assigned, notes = split(table, labels, "table")
        np.testing.assert_array_equal(assigned, table["split"].replace("validate", "validation").to_numpy())
        assert "The table's own split was used." in notes
        assert "Warning: 10 test patients give little power to compare groups." in notes

    def test_is_not_used_by_auto_when_its_test_part_is_small(self):
        table, labels = self.given()
        assigned, notes = split(table, labels, "auto")
        np.testing.assert_array_equal(assigned, split(table, labels, "random")[0])
        assert any("its test part has 10 patients" in note and "--split_source table" in note for note in notes)

    def test_is_used_by_auto_when_its_test_part_is_large(self):
        table, labels = self.given(4 * MIN_TEST_PATIENTS)
        assigned, notes = split(table, labels, "auto")
        assert ((assigned == "test") == (table["split"] == "test")).all()
        assert not any("Warning" in note for note in notes)

    @pytest.mark.parametrize("names", [("train", "test"), ("train", "train", "val", "test")])
    def test_lends_the_missing_parts_from_train_and_leaves_test_alone(self, names):
        table, labels = self.given(80, names)
        assigned, notes = split(table, labels, "table")
        assert set(assigned) == set(SPLITS)
        assert ((assigned == "test") == (table["split"] == "test")).all()
        assert ((assigned == "train") <= (table["split"] == "train")).all()
        assert table.assign(split=assigned).groupby("patient_id")["split"].nunique().max() == 1
        assert any("drawn by patient from its train part" in note for note in notes)

    def test_without_a_column_is_an_error(self):
        table, labels = made_up(0, 20)
        for lacking in (table, table.drop(columns="split")):
            with pytest.raises(InputError, match="brings no split"):
                split(lacking, labels, "table")

    @pytest.mark.parametrize("value", ["holdout", ""])
    def test_with_an_unknown_value_is_an_error(self, value):
        table, labels = self.given()
        table.loc[5, "split"] = value
        with pytest.raises(InputError, match=f"Column 'split' holds '{value}'; expected one of calibration, dev, test"):
            split(table, labels, "table")

    def test_with_a_patient_on_two_sides_is_an_error(self):
        table, labels = self.given()
        table = pd.concat([table, table.iloc[[0]].assign(split="test")], ignore_index=True)
        labels = np.concatenate([labels, labels[:1]])
        with pytest.raises(InputError, match="1 patients are in more than one part of the table's split"):
            split(table, labels, "table")

    def test_without_a_test_part_is_an_error(self):
        table, labels = self.given(40, ("train", "validate"))
        with pytest.raises(InputError, match="The splits test are empty"):
            split(table, labels, "table")
