"""Every metric in every cell is its pure function on the cell's rows, in the data as they are and in every resample."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from biascxr.audit import audit, cells
from biascxr.audit.build import patient_share
from biascxr.audit.cells import measure_cells, spread
from biascxr.audit.groups import ALL, OVERALL, find_groups
from biascxr.audit.tables import cell_bounds
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from biascxr.metrics import METRICS, resample_patients
from biascxr.metrics.sorted_pass import has_compiler

needs_numba = pytest.mark.skipif(not has_compiler, reason="numba is not installed: there is one form only")
FORMS = [False, pytest.param(True, marks=needs_numba)]
SEX, AGE = Attribute("sex", ("F", "M"), True), Attribute("age_group", ("young", "middle", "old"), False)
CROSSING = "sex x age_group"
# Both are found by iteration, and resampled by one Newton step: see test_calibration_cells.
OF_ROWS = [m for m, metric in METRICS.items() if not metric.of_group]
FITTED = ("calibration_in_the_large", "calibration_slope")


def make_world(seed: int, n: int, *, levels: int = 0, prevalence: float = 0.3, dtype=np.float64) -> Predictions:
    """Two findings; unknown groups, masked labels, absent decisions, tied scores, scores at both ends."""
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, max(1, n // 2), n)
    y = (rng.random((n, 2)) < prevalence).astype(np.float32)
    scores = np.clip(rng.normal(0.35 + 0.25 * y, 0.25), 0, 1)  # clipped: some are 0 or 1
    if levels:
        scores = np.round(scores * levels) / levels
    y[rng.random((n, 2)) < 0.07] = np.nan
    decisions = (scores > 0.4).astype(np.float32)
    decisions[rng.random((n, 2)) < 0.07] = np.nan
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)], "patient_id": [f"p{p}" for p in patient], "recipe": "erm",
            "sex": rng.choice(["F", "M", "unknown"], max(1, n // 2), p=[0.5, 0.35, 0.15])[patient],
            "age_group": rng.choice(["young", "middle", "old", "unknown"], n, p=[0.5, 0.3, 0.1, 0.1]),
        }
    )  # fmt: skip
    return Predictions(table, y, scores.astype(dtype), ("a", "b"), (SEX, AGE), decisions)


def groups_of(predictions: Predictions):
    """The groups of both attributes and of their crossing, where it has any."""
    both_known = ((predictions.table[["sex", "age_group"]] != "unknown").all(axis=1)).any()
    return find_groups(predictions, (SEX, AGE), (CROSSING,) if both_known else ())


def pure(metric, predictions: Predictions, groups, column: int, label: int, rows=slice(None), weight=None) -> float:
    """The metric's own function on the rows of a column, some of them perhaps several times."""
    y = predictions.y_true[:, label][rows]
    mask = groups.mask(column)[rows]
    second = (predictions.scores if METRICS[metric].reads == "score" else predictions.decisions)[:, label][rows]
    weight = None if weight is None else weight[rows]
    if not METRICS[metric].of_group:
        return METRICS[metric].load()(y[mask], second[mask], None if weight is None else weight[mask])
    attribute = groups.names[column][0]
    known = next(g.codes for g in groups.groupings if g.attribute.name == attribute)[rows] >= 0
    return METRICS[metric].load()(y[known], second[known], mask[known], None if weight is None else weight[known])


def columns_of(metric: str, groups) -> range:
    """A metric of a group is said of no everyone else."""
    return range(groups.n_own if METRICS[metric].of_group else len(groups.names))


def assert_cells_are_pure(made, predictions, groups, *, replicate=0, rows=slice(None), weight=None, without=()):
    for metric in (m for m in METRICS if m not in without):
        for column in columns_of(metric, groups):
            for label in range(2):
                expected = pure(metric, predictions, groups, column, label, rows, weight)
                value = made.values[metric][label, column, replicate]
                name = f"{metric}, {groups.names[column]}, {label}, replicate {replicate}"
                # A rounding of 1e-16 in a share of positives is one of 1e-8 in the noise of its bin.
                tolerance = 1e-6 if metric == "ECE_debiased" else 1e-9
                assert value == pytest.approx(expected, abs=tolerance, rel=1e-8, nan_ok=True), name


@pytest.mark.slow
@pytest.mark.parametrize("is_compiled", FORMS, ids=["numpy", "numba"])
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 70),
    levels=st.sampled_from([0, 2, 10]),
    prevalence=st.sampled_from([0.0, 0.05, 0.4, 1.0]),
    dtype=st.sampled_from([np.float32, np.float64]),
    is_weighted=st.booleans(),
)
@settings(deadline=None, max_examples=15)
def test_every_metric_in_every_cell_is_its_function_on_the_rows(is_compiled, seed, n, levels, prevalence, dtype, is_weighted):
    predictions = make_world(seed, n, levels=levels, prevalence=prevalence, dtype=dtype)
    weight = np.random.default_rng(seed).choice([0.0, 1 / 3, 1.0, 2.0], n) if is_weighted else None
    groups = groups_of(predictions)
    resamples = resample_patients(predictions.table["patient_id"], 5, seed=seed)
    made = measure_cells(predictions, groups, resamples, METRICS, weight=weight, is_compiled=is_compiled)
    assert_cells_are_pure(made, predictions, groups, weight=weight)
    # A patient drawn twice is two patients: the function on the copied rows.
    for r in (1, 4):
        drawn = np.repeat(np.arange(n), resamples.weights()[r].astype(int))
        assert_cells_are_pure(made, predictions, groups, replicate=r, rows=drawn, weight=weight, without=FITTED)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_a_resample_is_the_function_with_the_draws_as_weights(is_weighted):
    """But for the debiased calibration error, to which a weight of 2 is one row and a row drawn twice is two."""
    predictions = make_world(1, 500, levels=50)
    groups = groups_of(predictions)
    weight = np.random.default_rng(1).random(500) if is_weighted else None
    resamples = resample_patients(predictions.table["patient_id"], 150, seed=1)
    made = measure_cells(predictions, groups, resamples, METRICS, weight=weight)
    assert made.values["AUROC"].shape == (2, len(groups.names), 151)
    for r in (1, 64, 150):  # in the first, second and third block of lanes
        drawn = resamples.weights()[r] * (1 if weight is None else weight)
        assert_cells_are_pure(made, predictions, groups, replicate=r, weight=drawn, without=(*FITTED, "ECE_debiased"))
    assert not np.isnan(made.estimate("AUROC")[:, groups.index(OVERALL, ALL)]).any()


def test_everyone_else_of_everyone_is_nobody():
    predictions = make_world(2, 200)
    groups = groups_of(predictions)
    made = measure_cells(predictions, groups, resample_patients(predictions.table["patient_id"], 3, seed=0), METRICS)
    column = groups.index(OVERALL, ALL, others=True)
    for metric in METRICS:
        assert np.isnan(made.values[metric][:, column]).all()
    assert not made.counts.n[:, column].any()


def test_of_two_groups_each_is_everyone_else_of_the_other_in_value_error_and_interval():
    """Everyone else is found by subtraction; with weights that leaves 1e-16 where a rate is 0 or 1, and no error to it."""
    n_at_an_end = 0
    for seed in range(8):
        predictions = make_world(seed, 400, levels=20)
        is_few = (predictions.table["sex"] == "M").to_numpy() & (np.arange(400) % (3 + seed) == 0)
        few = predictions.table["sex"].where(~(predictions.table["sex"] == "M") | is_few, "unknown")
        predictions = replace(predictions, table=predictions.table.assign(sex=few))
        # The few are all right.
        predictions.decisions[is_few] = predictions.scores[is_few] = np.nan_to_num(predictions.y_true[is_few])
        groups = find_groups(predictions, (SEX,))
        weight = patient_share(predictions)
        resamples = resample_patients(predictions.table["patient_id"], 60, seed=seed)
        made = measure_cells(predictions, groups, resamples, METRICS, weight=weight)
        for metric in OF_ROWS:
            low, high = cell_bounds(made, metric, 0.95)
            for group, other in (("F", "M"), ("M", "F")):
                own, others = groups.index("sex", group), groups.index("sex", other, others=True)
                value = made.estimate(metric)[:, own]
                # On these the interval takes another form at 0 and 1.
                is_end = ((value == 0) | (value == 1)) & (METRICS[metric].interval in ("rate", "auroc", "logit"))
                n_at_an_end += is_end.sum()
                np.testing.assert_array_equal(made.estimate(metric)[is_end, others], value[is_end])
                for part in (made.estimate(metric), made.standard_error(metric), low, high):
                    np.testing.assert_allclose(part[:, others], part[:, own], atol=1e-6, err_msg=f"{metric}, {group}, {seed}")
    assert n_at_an_end > 100


@pytest.mark.parametrize("levels", [0, 15])
def test_rankings_are_those_of_scikit_learn(levels):
    predictions = make_world(3, 900, levels=levels)
    groups = groups_of(predictions)
    resamples = resample_patients(predictions.table["patient_id"], 70, seed=2)
    made = measure_cells(predictions, groups, resamples, ("AUROC", "AUPRC"))
    for r in (0, 3, 70):
        drawn = resamples.weights()[r]
        for column in range(1, len(groups.names)):
            for label in range(2):
                y = predictions.y_true[:, label]
                rows = groups.mask(column) & ~np.isnan(y) & (drawn > 0)
                if groups.names[column][0] == OVERALL or len(np.unique(y[rows])) < 2:
                    continue
                arguments = y[rows], predictions.scores[rows, label]
                auroc = roc_auc_score(*arguments, sample_weight=drawn[rows])
                auprc = average_precision_score(*arguments, sample_weight=drawn[rows])
                assert made.values["AUROC"][label, column, r] == pytest.approx(auroc, abs=1e-12)
                assert made.values["AUPRC"][label, column, r] == pytest.approx(auprc, abs=1e-12)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_micro_is_the_function_on_the_rows_of_all_findings_stacked(is_weighted):
    predictions = make_world(4, 300, levels=30)
    groups = groups_of(predictions)
    n = len(predictions.table)
    weight = np.random.default_rng(4).random(n) if is_weighted else None
    resamples = resample_patients(predictions.table["patient_id"], 4, seed=0)
    made = measure_cells(predictions, groups, resamples, METRICS, weight=weight, with_micro=True)
    assert made.n_findings == 2 and made.values["AUROC"].shape[0] == 3
    stacked = Predictions(
        table=pd.concat([predictions.table] * 2, ignore_index=True),
        y_true=np.tile(predictions.y_true.T.reshape(-1, 1), 2), scores=np.tile(predictions.scores.T.reshape(-1, 1), 2),
        decisions=np.tile(predictions.decisions.T.reshape(-1, 1), 2), label_names=("a", "b"), attributes=(SEX, AGE),
    )  # fmt: skip
    of_stacked = groups_of(stacked)
    micro = {m: made.values[m][[2, 2]] for m in METRICS}
    twice = None if weight is None else np.tile(weight, 2)
    only_micro = type(made)(micro, made.counts, 2)
    assert_cells_are_pure(only_micro, stacked, of_stacked, weight=twice)
    drawn = np.repeat(np.arange(2 * n), np.tile(resamples.weights()[2], 2).astype(int))
    assert_cells_are_pure(only_micro, stacked, of_stacked, replicate=2, rows=drawn, weight=twice, without=FITTED)
    without = measure_cells(predictions, groups, resamples, METRICS, weight=weight)
    for metric in METRICS:
        np.testing.assert_array_equal(without.values[metric], made.values[metric][:2])


def test_the_counts_and_patients_of_a_metric_are_those_of_its_class():
    predictions = make_world(5, 300)
    groups = groups_of(predictions)
    made = measure_cells(predictions, groups, resample_patients(predictions.table["patient_id"], 3, seed=0), METRICS)
    y, d, patient = predictions.y_true, predictions.decisions, predictions.table["patient_id"]
    for column in range(len(groups.names)):
        for label in range(2):
            own = groups.mask(column)
            positive, negative = (own & (y[:, label] == value) for value in (1, 0))
            known = positive | negative
            wanted = {
                "AUROC": min(patient[positive].nunique(), patient[negative].nunique()),
                "AUPRC": patient[positive].nunique(),
                "TPR": patient[positive & ~np.isnan(d[:, label])].nunique(),
                "PPV": patient[known & (d[:, label] == 1)].nunique(),
                "NPV": patient[known & (d[:, label] == 0)].nunique(),
                "Brier": patient[known].nunique(),
                "ECE": patient[known].nunique(),
                "BPSN_AUROC": patient[negative].nunique(),
            }
            for metric, n in wanted.items():
                assert made.class_patients(metric)[label, column] == n, (metric, groups.names[column])


def test_a_standard_error_is_in_closed_form_where_there_is_one_and_else_the_spread():
    predictions = make_world(6, 400)
    groups = groups_of(predictions)
    made = measure_cells(predictions, groups, resample_patients(predictions.table["patient_id"], 40, seed=0), METRICS)
    for metric, definition in METRICS.items():
        of_spread = pd.DataFrame(made.values[metric][0, :, 1:]).std(axis=1, ddof=1).to_numpy()
        np.testing.assert_allclose(spread(made.values[metric][:, :, 1:])[0], of_spread, rtol=1e-9, atol=1e-12)
        has_form = definition.interval in ("rate", "auroc", "mean")
        assert has_form == (metric in made.counts.errors)
        if not has_form:
            np.testing.assert_allclose(made.standard_error(metric)[0], of_spread, rtol=1e-9, atol=1e-12)


def bytes_of(made) -> bytes:
    parts = [*made.values.values(), *made.counts.errors.values(), made.counts.n, made.counts.n_effective]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


@pytest.mark.parametrize("is_compiled", FORMS, ids=["numpy", "numba"])
def test_same_seed_same_bytes_whatever_the_number_of_threads(monkeypatch, is_compiled):
    predictions = make_world(7, 300)
    groups = groups_of(predictions)
    made = []
    for n_threads in (1, 1, 5):
        monkeypatch.setattr(os, "cpu_count", lambda n_threads=n_threads: n_threads)
        resamples = resample_patients(predictions.table["patient_id"], 20, seed=3)
        made.append(bytes_of(measure_cells(predictions, groups, resamples, METRICS, with_micro=True, is_compiled=is_compiled)))
    assert made[0] == made[1] == made[2]
    other = resample_patients(predictions.table["patient_id"], 20, seed=4)
    assert bytes_of(measure_cells(predictions, groups, other, METRICS, with_micro=True, is_compiled=is_compiled)) != made[0]


def reordered(predictions: Predictions, order: np.ndarray, *, patient_id=None) -> Predictions:
    table = predictions.table.iloc[order].reset_index(drop=True)
    if patient_id is not None:
        table["patient_id"] = patient_id[order]
    return Predictions(
        table, predictions.y_true[order], predictions.scores[order], predictions.label_names, predictions.attributes,
        predictions.decisions[order],
    )  # fmt: skip


def measured(predictions: Predictions):
    resamples = resample_patients(predictions.table["patient_id"], 20, seed=3)
    return measure_cells(predictions, groups_of(predictions), resamples, METRICS, with_micro=True)


def test_neither_estimates_nor_resamples_depend_on_the_order_of_the_rows():
    predictions = make_world(8, 300, levels=20)
    expected, made = (
        measured(reordered(predictions, order)) for order in (np.arange(300), np.random.default_rng(0).permutation(300))
    )
    for metric in METRICS:
        tolerance = 1e-6 if metric == "ECE_debiased" else 1e-8
        np.testing.assert_allclose(made.values[metric], expected.values[metric], rtol=1e-7, atol=tolerance, err_msg=metric)
    for metric, errors in expected.counts.errors.items():
        np.testing.assert_allclose(made.counts.errors[metric], errors, atol=1e-8)
    np.testing.assert_array_equal(made.counts.n_patients, expected.counts.n_patients)


def test_the_type_of_the_identifiers_does_not_matter():
    predictions = make_world(9, 300)
    number = predictions.table["patient_id"].str[1:].astype(int).to_numpy()
    order = np.arange(300)
    kinds = (number, number.astype(str), number.astype(str).astype(object), pd.array(number, "Int64"))
    made = [bytes_of(measured(reordered(predictions, order, patient_id=kind))) for kind in kinds]
    assert len(set(made)) == 1


WITHOUT_NUMBA = """
import importlib.abc, json, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "numba":
            raise ImportError("numba is not installed")
sys.meta_path.insert(0, Block())
from biascxr.audit import audit, cells
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from pathlib import Path
cells.COMPILE_FROM = 0  # were numba there, it would be used
attributes = (Attribute("sex", ("F", "M"), True), Attribute("age_group", ("young", "middle", "old"), False))
predictions = Predictions.load(Path(sys.argv[1]), attributes)
config = AuditConfig(metrics=("all",), crossings=("sex x age_group",), adjust=("age_group",), n_replicates=50, n_permutations=9)
result = audit(predictions, config)
assert "numba" not in sys.modules and not cells.has_compiler
print(json.dumps([result.metrics.fillna(-1).to_dict("list"), result.adjusted.fillna(-1).to_dict("list")]))
"""


@needs_numba
@pytest.mark.slow
def test_the_audit_gives_the_same_where_numba_cannot_be_imported(tmp_path, monkeypatch):
    predictions = make_world(10, 400)
    path = tmp_path / "predictions.parquet"
    predictions.save(path)
    run = subprocess.run([sys.executable, "-c", WITHOUT_NUMBA, str(path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    metrics, adjusted = (pd.DataFrame(table) for table in json.loads(run.stdout.strip().splitlines()[-1]))
    monkeypatch.setattr(cells, "COMPILE_FROM", 0)
    options = {"crossings": (CROSSING,), "adjust": ("age_group",), "n_replicates": 50, "n_permutations": 9}
    expected = audit(Predictions.load(path, (SEX, AGE)), AuditConfig(metrics=("all",), **options))
    for made, table in ((metrics, expected.metrics), (adjusted, expected.adjusted)):
        assert list(made["metric"]) == list(table["metric"]) and list(made["group"]) == list(table["group"])
        for column in ("value", "low", "high", "difference"):
            np.testing.assert_allclose(made[column], table[column].fillna(-1), rtol=1e-6, atol=1e-6, err_msg=column)
    assert metrics["value"].nunique() > 100


def test_small_work_is_left_to_numpy_and_large_work_is_compiled():
    predictions = make_world(11, 100)
    groups = groups_of(predictions)
    few = resample_patients(predictions.table["patient_id"], 10, seed=0)
    assert not cells.is_worth_compiling(predictions, groups, few)
    visits = 100 * 2 * len(groups.groupings) * 11
    assert cells.is_worth_compiling(predictions, groups, few, -(-cells.COMPILE_FROM // visits)) == has_compiler
