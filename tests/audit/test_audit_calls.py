"""The ways to call the audit: what may be given, in which order, and what comes back from disk."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from biascxr.audit import AuditResult, audit, compare, match_rows, parse_predictions
from biascxr.audit.build import TABLES
from biascxr.config import AuditConfig
from biascxr.containers import Attribute
from biascxr.errors import InputError
from biascxr.metrics import METRICS

CONFIG = AuditConfig(n_replicates=60, n_permutations=50)
RESULT_CONFIG = replace(CONFIG, crossings=("race x sex",), adjust=("race",), metrics=("AUROC", "TPR", "FPR", "Brier"))
QUICK = replace(CONFIG, n_permutations=0, metrics=("AUROC", "TPR", "FPR"))


def named(predictions, recipe: str, **changes):
    return replace(predictions, table=predictions.table.assign(recipe=recipe), **changes)


def noisy(predictions, *, recipe: str = "noisy", seed: int = 0):
    noise = np.random.default_rng(seed).normal(0, 0.1, predictions.scores.shape)
    scores = np.clip(predictions.scores + noise, 0, 1).astype(np.float32)
    return named(predictions, recipe, scores=scores, decisions=(scores >= 0.5).astype(np.float32))


def frame_of(predictions, tmp_path) -> pd.DataFrame:
    """Returns the predictions as the table that anybody might have."""
    predictions.save(tmp_path / "p.parquet")
    return pd.read_parquet(tmp_path / "p.parquet")


def rows_in(predictions, order: np.ndarray):
    return replace(
        predictions, table=predictions.table.iloc[order].reset_index(drop=True), y_true=predictions.y_true[order],
        scores=predictions.scores[order], decisions=predictions.decisions[order],
    )  # fmt: skip


def assert_same(first: AuditResult, second: AuditResult) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name), check_exact=True)
    assert first.estimand == second.estimand


@pytest.fixture(scope="module")
def erm(random_predictions):
    return random_predictions(0)


@pytest.fixture(scope="module")
def result(erm) -> AuditResult:
    return audit([erm, noisy(erm)], RESULT_CONFIG, seed=0)


@pytest.fixture(scope="module")
def changes(erm) -> pd.DataFrame:
    """What `compare` says of the same rows in the same order."""
    return compare(erm, noisy(erm), QUICK)


def test_one_a_list_a_mapping_and_a_data_frame_are_audited_alike(erm, tmp_path):
    made = audit(erm, QUICK)
    assert_same(made, audit([erm], QUICK))
    assert_same(made, audit(iter([erm]), QUICK))
    assert_same(made, audit({"erm": erm}, QUICK))
    of_frame = audit(frame_of(erm, tmp_path), QUICK)
    assert set(of_frame.metrics["recipe"]) == {"erm"}
    keys = ["label", "attribute", "group", "metric"]
    a, b = (r.metrics.set_index(keys).sort_index() for r in (made, of_frame))
    pd.testing.assert_frame_equal(a, b.loc[a.index], check_exact=False, rtol=1e-6)


def test_a_data_frame_of_two_recipes_compares_them(erm, tmp_path):
    frame = pd.concat([frame_of(p, tmp_path) for p in (erm, noisy(erm))], ignore_index=True)
    made = audit(frame, QUICK)
    assert_same(made, audit(parse_predictions(frame).predictions, QUICK))
    assert set(made.metrics["recipe"]) == {"erm", "noisy"} and set(made.comparisons["recipe"]) == {"noisy"}


def test_a_mapping_names_the_recipes(erm):
    made = audit({"seed 0": erm, "seed 1": noisy(erm, recipe="erm")}, QUICK)
    assert list(made.metrics["recipe"].unique()) == ["seed 0", "seed 1"]
    assert set(made.comparisons["recipe"]) == {"seed 1"}


def test_two_predictions_of_one_recipe_in_a_list_are_refused(erm):
    """The second would silently take the place of the first."""
    with pytest.raises(InputError, match=r"recipe 'erm', so their results cannot be told apart.*mapping"):
        audit([erm, noisy(erm, recipe="erm")], QUICK)


@pytest.mark.parametrize("empty", [[], {}])
def test_no_predictions_at_all_are_refused(empty):
    with pytest.raises(InputError, match="no predictions to audit"):
        audit(empty, QUICK)


def test_a_mapping_to_predictions_without_rows_is_refused(erm):
    with pytest.raises(InputError, match="no row to audit"):
        audit({"erm": erm.in_split("train")}, QUICK)


def test_the_same_seed_gives_the_same_bytes(erm, result, tmp_path):
    for name, made in (("first", result), ("second", audit([erm, noisy(erm)], RESULT_CONFIG, seed=0))):
        (tmp_path / name).mkdir()
        made.save(tmp_path / name)
    for path in sorted((tmp_path / "first").iterdir()):
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


def test_a_result_comes_back_from_disk(result, tmp_path):
    result.save(tmp_path)
    again = AuditResult.load(tmp_path)
    for name in TABLES:
        frame = getattr(result, name)
        assert len(frame) > 0, name
        pd.testing.assert_frame_equal(getattr(again, name), frame, check_dtype=False, check_exact=True)
    assert again.estimand == result.estimand != ""


def test_every_field_of_a_result_is_saved(result, tmp_path):
    """A new table must not be forgotten on disk."""
    result.save(tmp_path)
    again = AuditResult.load(tmp_path)
    for field in fields(AuditResult):
        before, after = getattr(result, field.name), getattr(again, field.name)
        assert len(before) == len(after), field.name


def test_groups_and_recipes_with_awkward_names_come_back_from_disk(make_predictions, tmp_path):
    """pandas would read NA and None as missing, and 1 as a number."""
    rng = np.random.default_rng(0)
    names = np.array(["NA", "None", "1"])
    predictions = make_predictions(
        rng.integers(0, 2, (300, 1)), rng.random((300, 1)), recipe="2", label_names=("nan",),
        attributes=(Attribute("site", ("NA", "None", "1"), True),), site=names[np.arange(300) % 3],
    )  # fmt: skip
    made = audit(predictions, CONFIG)
    made.save(tmp_path)
    again = AuditResult.load(tmp_path)
    for name in ("metrics", "gaps", "tests", "cross_auroc"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(made, name), check_dtype=False)
    assert {"NA", "None", "1"} <= set(again.metrics["group"]) and set(again.metrics["recipe"]) == {"2"}


def test_predictions_without_decisions_are_audited_on_their_scores(erm):
    made = audit(replace(erm, decisions=None), CONFIG)
    expected = {m for m in CONFIG.metrics if METRICS[m].reads == "score"}
    assert set(made.metrics["metric"]) == expected == {"AUROC", "AUPRC", "Brier", "ECE", "ECE_debiased"}
    assert set(made.gaps["metric"]) == expected and set(made.tests["metric"]) == {"AUROC"}
    with_decisions = audit(erm, CONFIG).metrics
    kept = with_decisions[with_decisions["metric"].isin(expected) & (with_decisions["label"] != "No Finding (derived)")]
    own = made.metrics[made.metrics["label"] != "No Finding (derived)"]
    pd.testing.assert_frame_equal(own.reset_index(drop=True), kept.reset_index(drop=True))


def test_where_one_recipe_has_no_decisions_all_are_audited_on_scores(erm):
    made = audit([erm, named(erm, "scores only", decisions=None)], QUICK)
    assert set(made.metrics["metric"]) == {"AUROC"} == set(made.comparisons["metric"])


def test_rates_alone_need_decisions(erm):
    with pytest.raises(InputError, match="None of TPR, FPR can be measured without decisions: give thresholds"):
        audit(replace(erm, decisions=None), replace(QUICK, metrics=("TPR", "FPR")))


def test_comparing_is_the_audits_own_comparison(erm, changes):
    pd.testing.assert_frame_equal(changes, audit([erm, noisy(erm)], QUICK).comparisons)


def test_rows_in_another_order_compare_alike(erm, changes):
    order = np.random.default_rng(0).permutation(len(erm.table))
    pd.testing.assert_frame_equal(compare(erm, rows_in(noisy(erm), order), QUICK), changes)


def test_findings_in_another_order_compare_alike(erm, changes):
    other = noisy(erm)
    turned = replace(
        other, y_true=other.y_true[:, ::-1], scores=other.scores[:, ::-1], decisions=other.decisions[:, ::-1],
        label_names=other.label_names[::-1],
    )  # fmt: skip
    pd.testing.assert_frame_equal(compare(erm, turned, QUICK), changes)


def test_data_frames_in_another_order_compare_alike(erm, tmp_path):
    a, b = frame_of(erm, tmp_path), frame_of(noisy(erm), tmp_path)
    shuffled = b.sample(frac=1, random_state=0).reset_index(drop=True)
    pd.testing.assert_frame_equal(compare(a, shuffled, QUICK), compare(a, b, QUICK))


def test_two_predictions_of_one_name_are_told_apart_as_before_and_after(erm):
    table = compare(erm, noisy(erm, recipe="erm"), QUICK)
    assert set(table["recipe"]) == {"erm (after)"}


def test_predictions_of_different_images_are_not_compared(erm):
    fewer = rows_in(erm, np.arange(590))
    with pytest.raises(InputError, match=r"10 of 600 images are missing from the second, which has 590"):
        compare(erm, fewer, QUICK)
    with pytest.raises(InputError, match=r"0 of 590 images are missing from the second, which has 600"):
        compare(fewer, erm, QUICK)
    renamed = replace(erm, table=erm.table.assign(image_id=[f"other {i}" for i in range(600)]))
    with pytest.raises(InputError, match="600 of 600 images are missing"):
        compare(erm, renamed, QUICK)


def test_other_findings_or_labels_are_not_compared(erm):
    with pytest.raises(InputError, match="the second lacks finding 1"):
        compare(erm, replace(noisy(erm), label_names=("finding 0", "another")), QUICK)
    with pytest.raises(InputError, match="different findings or labels"):
        compare(erm, replace(noisy(erm), y_true=1 - erm.y_true), QUICK)


def test_rows_that_repeat_an_image_cannot_be_matched(erm):
    ids = erm.table["image_id"].tolist()
    repeated = replace(erm, table=erm.table.assign(image_id=[ids[1], *ids[1:]]))
    for pair in ((erm, repeated), (repeated, erm)):
        with pytest.raises(InputError, match="1 rows repeat an image_id"):
            match_rows(*pair)


def test_image_ids_written_as_numbers_match_those_written_as_text(erm):
    text = replace(erm, table=erm.table.assign(image_id=[str(i) for i in range(600)]))
    numbers = replace(noisy(erm), table=erm.table.assign(recipe="noisy", image_id=np.arange(600)))
    np.testing.assert_array_equal(match_rows(numbers, text).scores, numbers.scores)
    np.testing.assert_array_equal(match_rows(text, numbers).scores, text.scores)


def test_a_side_with_several_recipes_is_refused(erm, tmp_path):
    frame = pd.concat([frame_of(p, tmp_path) for p in (erm, noisy(erm))], ignore_index=True)
    with pytest.raises(InputError, match=r"one side holds 2: erm, noisy\. Use audit"):
        compare(frame, erm, QUICK)
