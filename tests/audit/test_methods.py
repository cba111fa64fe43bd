"""A verdict on a method rests on several training runs; their chance is in its interval."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from biascxr.audit import GAP, MACRO, OVERALL, TrainedRun, compare, compare_methods
from biascxr.audit.cells import RunNoise
from biascxr.audit.comparisons import with_run_noise
from biascxr.audit.methods import NO_VERDICT, run_draws, run_factor, unit_numbers
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from biascxr.errors import InputError
from biascxr.metrics.intervals import t_p_value

N = 600
CONFIG = AuditConfig(metrics=("AUROC", "TPR", "FPR"), n_replicates=200, n_permutations=0)


def predictions_of(recipe: str, seed: int, *, quality: float, jitter: float = 0.0) -> Predictions:
    """Scores of one trained model: the same noise of patients for all, noise of its own, and a quality that moves by run."""
    rng = np.random.default_rng(0)
    y = (rng.random((N, 2)) < 0.3).astype(np.float32)
    sex = rng.choice(["F", "M"], N)
    noise = rng.normal(size=(N, 2))
    own = np.random.default_rng([seed, len(recipe)])
    strength = quality + jitter * own.normal()
    scores = 1 / (1 + np.exp(-(strength * y + noise + 0.1 * own.normal(size=(N, 2)))))
    table = pd.DataFrame(
        {"image_id": [f"i{i}" for i in range(N)], "study_id": [f"s{i}" for i in range(N)],
         "patient_id": [f"p{i // 2}" for i in range(N)], "split": "test", "recipe": recipe, "seed": seed, "fold": 0, "sex": sex}
    )  # fmt: skip
    decisions = (scores > 0.6).astype(np.float32)
    return Predictions(table, y, scores, ("x", "y"), (Attribute("sex", ("F", "M"), True),), decisions)


def runs_of(recipe: str, keys, **how) -> list[TrainedRun]:
    return [TrainedRun(s, f, lambda s=s, f=f: predictions_of(recipe, s + 100 * f, **how)) for s, f in keys]


def macro_auroc(comparisons: pd.DataFrame) -> pd.Series:
    own = comparisons[(comparisons["label"] == MACRO) & (comparisons["attribute"] == OVERALL)]
    return own.set_index("metric").loc["AUROC"]


def test_the_estimate_is_the_mean_of_the_runs_differences():
    keys = [(s, 0) for s in range(5)]
    made = compare_methods({"erm": runs_of("erm", keys, quality=1.0), "better": runs_of("better", keys, quality=1.5)}, CONFIG)
    wide = made.runs.query("attribute == 'overall' and metric == 'AUROC'").pivot(index="seed", columns="recipe", values="value")
    row = macro_auroc(made.comparisons)
    assert row["change"] == pytest.approx((wide["better"] - wide["erm"]).mean())
    assert row["verdict"] == "better" and row["low"] > 0 and row["n_units"] == 5


def test_one_run_is_the_paired_comparison_of_two_models_and_gives_no_verdict():
    keys = [(0, 0)]
    made = compare_methods({"erm": runs_of("erm", keys, quality=1.0), "b": runs_of("b", keys, quality=1.5)}, CONFIG)
    paired = compare(predictions_of("erm", 0, quality=1.0), predictions_of("b", 0, quality=1.5), CONFIG)
    mine, theirs = macro_auroc(made.comparisons), macro_auroc(paired)
    for name in ("change", "low", "high", "p_value"):
        assert mine[name] == pytest.approx(theirs[name])
    assert set(made.comparisons["verdict"]) == {NO_VERDICT}
    assert set(made.comparisons["levelling"]) == {""}


def test_runs_that_differ_widen_the_interval():
    keys = [(s, 0) for s in range(6)]
    widths = []
    for jitter in (0.0, 0.5):
        runs = {"erm": runs_of("erm", keys, quality=1.0), "b": runs_of("bb", keys, quality=1.2, jitter=jitter)}
        row = macro_auroc(compare_methods(runs, CONFIG).comparisons)
        widths.append(row["high"] - row["low"])
    assert widths[1] > 1.5 * widths[0]


class Means(SimpleNamespace):
    """Cells that are means over units: `units [U]` of one finding in one column."""

    @classmethod
    def of(cls, units, factor: float):
        units = np.asarray(units, float).reshape(-1, 1, 1)
        return cls(runs=RunNoise({"AUROC": units}, factor, np.zeros((len(units), 3))))


def test_p_values_of_run_noise_alone_are_right_far_out_too():
    """Five seeds, no other chance: Student's t with four degrees of freedom, to the last level that Holm asks for."""
    rng = np.random.default_rng(0)
    n, draws = 5, 20_000
    p = []
    for v in rng.normal(size=(draws, n)):
        before, after = Means.of(np.zeros(n), 1 / n), Means.of(v, 1 / n)
        error, df = with_run_noise(before, after, "AUROC", np.array([0]), [0], np.zeros(1), np.full(1, np.inf))
        p.append(t_p_value(np.array([v.mean()]), error, df=df)[0])
    p = np.array(p)
    for level in (0.05, 0.0125, 0.0025):
        assert abs((p < level).mean() - level) < 4 * np.sqrt(level / draws), level


def test_degrees_of_freedom_are_those_of_the_larger_chance():
    v = np.array([1.0, -1.0, 2.0, 0.0, -2.0])
    before, after = Means.of(np.zeros(5), 1 / 5), Means.of(v, 1 / 5)
    of_runs = np.sqrt(v.var(ddof=1) / 5)
    for patients, expected in ((1e-9, 4), (1e6, 40)):
        error, df = with_run_noise(before, after, "AUROC", np.array([0]), [0], np.array([patients]), np.array([40.0]))
        assert error[0] == pytest.approx(np.hypot(patients, of_runs)) and df[0] == pytest.approx(expected, rel=1e-6)


def test_folds_share_patients_so_their_variance_counts_more():
    assert run_factor(5, is_folds=False) == 1 / 5
    assert run_factor(5, is_folds=True) == 1 / 5 + 1 / 4
    assert run_factor(1, is_folds=False) == 0


def test_the_noise_in_resamples_has_the_variance_of_the_mean_over_runs():
    units = np.array([[0.3], [0.1], [-0.2], [0.4], [0.0]])
    for is_folds in (False, True):
        factor = run_factor(5, is_folds=is_folds)
        noise = RunNoise({}, factor, run_draws(5, 40_000, factor, seed=0))
        made = noise.add_to(np.zeros((1, 40_001)), units)
        assert made[0, 0] == 0 and made[0, 1:].std() == pytest.approx(np.sqrt(factor * units.var(ddof=1)), rel=0.02)


def test_a_unit_is_a_fold_where_there_are_several_and_a_seed_where_there_is_one():
    assert unit_numbers([(0, 0), (1, 0), (2, 0)]).tolist() == [0, 1, 2]
    assert unit_numbers([(0, 0), (0, 1), (1, 0), (1, 1)]).tolist() == [0, 1, 0, 1]
    assert run_draws(1, 10, 0.0, seed=0).shape == (1, 10) and not run_draws(1, 10, 0.0, seed=0).any()


def test_the_seeds_of_a_fold_are_averaged_before_folds_are_compared():
    keys = [(s, f) for s in range(2) for f in range(3)]
    runs = {"erm": runs_of("erm", keys, quality=1.0, jitter=0.3), "b": runs_of("bb", keys, quality=1.0, jitter=0.3)}
    made = compare_methods(runs, CONFIG)
    wide = made.runs.query("attribute == 'overall' and metric == 'AUROC'")
    wide = wide.pivot(index=["seed", "fold"], columns="recipe", values="value")
    of_folds = (wide["b"] - wide["erm"]).groupby("fold").mean()
    row = macro_auroc(made.comparisons)
    assert row["n_units"] == 3 and row["change"] == pytest.approx(of_folds.mean())
    least = np.sqrt(of_folds.var(ddof=1) * (1 / 3 + 1 / 2))
    assert row["high"] - row["change"] > 1.96 * least


@pytest.mark.parametrize("n_seeds", [2, 4])
def test_fewer_than_five_seeds_give_no_verdict(n_seeds):
    keys = [(s, 0) for s in range(n_seeds)]
    made = compare_methods({"erm": runs_of("erm", keys, quality=0.5), "b": runs_of("b", keys, quality=3.0)}, CONFIG)
    assert set(made.comparisons["verdict"]) == {NO_VERDICT}


def test_a_gap_of_groups_is_compared_too_and_recipes_keep_their_order():
    keys = [(s, 0) for s in range(5)]
    runs = {r: runs_of(r, keys, quality=q) for r, q in (("erm", 1.0), ("zeta", 1.0), ("alpha", 1.0))}
    made = compare_methods(runs, CONFIG).comparisons
    assert list(dict.fromkeys(made["recipe"])) == ["zeta", "alpha"]
    gaps = made[(made["group"] == GAP) & (made["label"] == MACRO)]
    assert set(gaps["attribute"]) == {"sex"} and gaps["low"].notna().all()


def test_recipes_with_other_seeds_cannot_be_compared():
    runs = {"erm": runs_of("erm", [(0, 0), (1, 0)], quality=1.0), "b": runs_of("b", [(0, 0), (2, 0)], quality=1.0)}
    with pytest.raises(InputError, match="b was not trained with the same seeds and folds as erm"):
        compare_methods(runs, CONFIG)
