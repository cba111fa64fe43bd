"""A verdict on a method rests on several training runs; their chance is in its interval."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biascxr.audit import GAP, MACRO, OVERALL, TrainedRun, compare, compare_methods
from biascxr.audit.methods import NO_VERDICT, run_draws, unit_numbers
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from biascxr.errors import InputError

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


def test_the_interval_holds_the_difference_of_methods_in_19_of_20_sweeps():
    """Run noise alone, on a closed form: the half width is that of Student's t on the units' means."""
    rng = np.random.default_rng(0)
    n, held = 5, 0
    draws = run_draws(n, 4000, 0.95, seed=0)
    for _ in range(400):
        v = rng.normal(size=n)
        spread = ((v - v.mean()) @ draws).std(ddof=1)
        held += abs(v.mean()) <= 1.96 * spread
    assert 0.92 < held / 400 < 0.98


def test_a_unit_is_a_fold_where_there_are_several_and_a_seed_where_there_is_one():
    assert unit_numbers([(0, 0), (1, 0), (2, 0)]).tolist() == [0, 1, 2]
    assert unit_numbers([(0, 0), (0, 1), (1, 0), (1, 1)]).tolist() == [0, 1, 0, 1]
    assert run_draws(1, 10, 0.95, seed=0).shape == (1, 10) and not run_draws(1, 10, 0.95, seed=0).any()


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
