"""Containers: checked once when built; saved and loaded, they are the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biascxr.containers import Attribute, Cohort, EmbeddingSet, Predictions
from biascxr.errors import InputError

SEX = (Attribute("sex", ("F", "M"), True),)


@pytest.fixture
def cohort(make_cohort):
    split = ["train"] * 6 + ["validation", "calibration", "test", "test"]
    return make_cohort([f"i{i}" for i in range(10)], [f"{i}.jpg" for i in range(10)], "/data", split=split)


@pytest.fixture
def predictions(cohort):
    table = cohort.table[["image_id", "study_id", "patient_id", "split", "sex"]].assign(recipe="erm", seed=0, fold=0)
    rng = np.random.default_rng(0)
    return Predictions(
        table=table,
        y_true=cohort.labels,
        scores=rng.random(cohort.labels.shape).astype(np.float32),
        label_names=cohort.label_names,
        attributes=SEX,
        decisions=rng.choice([0, 1, np.nan], cohort.labels.shape).astype(np.float32),
    )


class TestCohort:
    @pytest.mark.parametrize("column", ["image_id", "study_id", "patient_id", "path", "view", "split", "age"])
    def test_lacks_no_column(self, cohort, column):
        with pytest.raises(ValueError, match=f"lacks the columns \\['{column}'\\]"):
            replace(cohort, table=cohort.table.drop(columns=column))

    def test_has_a_column_for_every_attribute(self, cohort):
        with pytest.raises(ValueError, match="lacks the columns \\['race'\\]"):
            replace(cohort, attributes=(*SEX, Attribute("race", ("A", "B"), True)))

    def test_holds_an_image_once(self, cohort):
        with pytest.raises(ValueError, match="holds an image_id twice"):
            replace(cohort, table=cohort.table.assign(image_id="same"))

    def test_labels_are_one_row_per_image_and_zero_one_or_nan(self, cohort):
        with pytest.raises(ValueError, match=r"must have shape \(10, 2\); got \(9, 2\)"):
            replace(cohort, labels=cohort.labels[1:])
        for value in (-1, 0.5, np.inf):
            labels = cohort.labels.copy()
            labels[3, 1] = value
            with pytest.raises(ValueError, match="must hold 0, 1 or NaN only"):
                replace(cohort, labels=labels)

    def test_groups_are_those_declared_or_unknown(self, cohort):
        table = cohort.table.copy()
        table.loc[0, "sex"] = "X"
        with pytest.raises(ValueError, match=r"'sex' has values outside its groups: \['X'\]"):
            replace(cohort, table=table)

    def test_a_patient_is_in_one_split(self, cohort):
        with pytest.raises(ValueError, match="A patient is in more than one split"):
            replace(cohort, table=cohort.table.assign(patient_id="p"))

    def test_a_split_is_one_of_four(self, cohort):
        with pytest.raises(ValueError, match="splits must be among"):
            replace(cohort, table=cohort.table.assign(split="holdout"))

    def test_rows_are_given_in_the_order_asked_for(self, cohort):
        part = cohort.rows(np.array(["i7", "i2"], object))
        assert part.table["path"].tolist() == ["7.jpg", "2.jpg"]
        np.testing.assert_array_equal(part.labels, cohort.labels[[7, 2]])
        with pytest.raises(KeyError, match="1 image_ids are not in the cohort"):
            cohort.rows(np.array(["i7", "other"], object))

    def test_splits_cover_every_row_once(self, cohort):
        rows = np.concatenate([cohort.split_rows(s) for s in ("train", "validation", "calibration", "test")])
        assert sorted(rows) == list(range(len(cohort)))
        assert cohort.split_rows("test").tolist() == [8, 9]

    def test_saved_and_loaded_is_the_same(self, cohort, tmp_path):
        cohort = replace(cohort, accounting={"notes": ["ä"], "n": 3})
        cohort.save(tmp_path)
        again = Cohort.load(tmp_path)
        pd.testing.assert_frame_equal(again.table, cohort.table)
        np.testing.assert_array_equal(again.labels, cohort.labels)
        for name in ("label_names", "attributes", "layout", "content", "images_root", "accounting"):
            assert getattr(again, name) == getattr(cohort, name)


class TestEmbeddingSet:
    def make(self, n=4, **changes):
        fields = {
            "image_id": np.array([f"i{i}" for i in range(n)], object),
            "view_id": np.zeros(n, np.int32),
            "vectors": np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32),
            "card": {"encoder": "toy", "is_trained": False},
        }
        return EmbeddingSet(**(fields | changes))

    def test_lengths_agree(self):
        for changes in (
            {"vectors": np.zeros((3, 3), np.float32)},
            {"vectors": np.zeros(4, np.float32)},
            {"view_id": np.zeros(3, np.int32)},
        ):
            with pytest.raises(ValueError, match=r"vectors \[n, d\] and view_id \[n\] for n = 4 image_ids; got"):
                self.make(**changes)

    def test_vectors_are_float32_or_float16(self):
        with pytest.raises(ValueError, match="must be float32 or float16; got float64"):
            self.make(vectors=np.zeros((4, 3)))
        assert self.make(vectors=np.zeros((4, 3), np.float16)).vectors.dtype == np.float16

    def test_saved_and_loaded_is_the_same_and_stays_on_disk(self, tmp_path):
        made = self.make()
        made.save(tmp_path)
        again = EmbeddingSet.load(tmp_path)
        assert isinstance(again.vectors, np.memmap)
        np.testing.assert_array_equal(again.vectors, made.vectors)
        np.testing.assert_array_equal(again.image_id, made.image_id)
        np.testing.assert_array_equal(again.view_id, made.view_id)
        assert again.card == made.card

    def test_no_pickle_is_loaded(self, tmp_path):
        self.make().save(tmp_path)
        np.save(tmp_path / "vectors.npy", np.array([{"a": 1}] * 4, object), allow_pickle=True)
        with pytest.raises(ValueError, match=r"allow_pickle|Array can't be memory-mapped"):
            EmbeddingSet.load(tmp_path)


class TestPredictions:
    @pytest.mark.parametrize("ending", ["csv", "parquet"])
    @pytest.mark.parametrize("with_decisions", [True, False])
    def test_saved_and_loaded_are_the_same(self, predictions, tmp_path, ending, with_decisions):
        made = predictions if with_decisions else replace(predictions, decisions=None)
        path = tmp_path / f"predictions.{ending}"
        made.save(path)
        again = Predictions.load(path, SEX)
        assert again.label_names == made.label_names
        pd.testing.assert_frame_equal(again.table, made.table, check_dtype=False)
        np.testing.assert_array_equal(again.y_true, made.y_true)
        np.testing.assert_array_equal(again.scores, made.scores)
        if with_decisions:
            np.testing.assert_array_equal(again.decisions, made.decisions)
        else:
            assert again.decisions is None

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_no_digit_of_a_score_is_lost(self, predictions, tmp_path, dtype):
        made = replace(predictions, scores=np.random.default_rng(1).random(predictions.scores.shape).astype(dtype))
        for ending, kept in (("parquet", dtype), ("csv", np.float64)):
            made.save(tmp_path / f"a.{ending}")
            again = Predictions.load(tmp_path / f"a.{ending}", SEX)
            assert again.scores.dtype == kept
            np.testing.assert_array_equal(again.scores, made.scores)

    def test_scores_are_floats_of_32_or_64_bits(self, predictions):
        for dtype in (np.float16, int):
            with pytest.raises(ValueError, match="must be float32 or float64; got"):
                replace(predictions, scores=predictions.scores.astype(dtype))

    def test_identifiers_stay_text_in_csv(self, predictions, tmp_path):
        made = replace(predictions, table=predictions.table.assign(patient_id=[f"00{i}" for i in range(10)]))
        made.save(tmp_path / "a.csv")
        assert Predictions.load(tmp_path / "a.csv", SEX).table["patient_id"][3] == "003"

    def test_scores_are_probabilities(self, predictions):
        for value in (-0.1, 1.1, np.nan):
            scores = predictions.scores.copy()
            scores[0, 0] = value
            with pytest.raises(ValueError, match=r"probabilities in \[0, 1\], none of them NaN"):
                replace(predictions, scores=scores)

    def test_have_a_column_for_every_attribute(self, predictions):
        with pytest.raises(ValueError, match="lacks the columns \\['race'\\]"):
            replace(predictions, attributes=(Attribute("race", ("A", "B"), True),))

    def test_shapes_agree(self, predictions):
        with pytest.raises(ValueError, match=r"scores must have shape \(10, 2\)"):
            replace(predictions, scores=predictions.scores[:, :1])
        with pytest.raises(ValueError, match=r"decisions must have shape \(10, 2\)"):
            replace(predictions, decisions=predictions.decisions[:5])

    def test_a_decision_is_yes_no_or_none(self, predictions):
        with pytest.raises(ValueError, match="decisions must hold 0, 1 or NaN only"):
            replace(predictions, decisions=predictions.scores)

    def test_one_split(self, predictions):
        part = predictions.in_split("test")
        assert part.table["image_id"].tolist() == ["i8", "i9"]
        np.testing.assert_array_equal(part.scores, predictions.scores[8:])
        np.testing.assert_array_equal(part.decisions, predictions.decisions[8:])

    def test_a_file_without_pairs_of_columns_is_an_error(self, predictions, tmp_path):
        predictions.save(tmp_path / "a.csv")
        frame = pd.read_csv(tmp_path / "a.csv")
        frame.drop(columns="prob_Edema").to_csv(tmp_path / "b.csv", index=False)
        with pytest.raises(InputError, match=r"b\.csv needs pairs of .*lacking: \['prob_Edema'\]"):
            Predictions.load(tmp_path / "b.csv", SEX)
        frame[["image_id"]].to_csv(tmp_path / "c.csv", index=False)
        with pytest.raises(InputError, match=r"c\.csv needs pairs of true_<label> and prob_<label> columns"):
            Predictions.load(Path(tmp_path / "c.csv"), SEX)
