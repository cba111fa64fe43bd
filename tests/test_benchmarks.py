"""The benchmarks run: on tiny data here; what they measure is printed, never tested against a clock."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biascxr.errors import InputError
from biascxr.phantom import MECHANISMS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _helpers_are_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def run(script: str, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(BENCHMARKS / script), *flags], capture_output=True, text=True)


@pytest.mark.slow
def test_the_speed_benchmark_finds_both_sides_equal():
    made = run("audit_speed.py", "--quick", "--rows", "400", "--replicates", "70", "--no-growth")
    assert made.returncode == 0, made.stderr
    assert "largest difference from scikit-learn" in made.stdout and "times faster" in made.stdout


@pytest.mark.slow
def test_the_calibration_benchmark_prints_figures_beside_their_targets():
    made = run("audit_calibration.py", "--worlds", "2", "--part", "gaps,power")
    assert made.returncode == 0, made.stderr
    assert "94..100" in made.stdout and "figures pass" in made.stdout


@pytest.mark.slow
def test_the_phantom_benchmark_finds_the_planted_bias_and_where_labels_mislead():
    made = run("phantom.py", "--audits", "2", "--mechanisms", "annotation")
    assert "NOT MET" not in made.stdout and made.returncode == 0, made.stdout + made.stderr
    assert "annotation, FPR: recorded labels mislead (0% hold the true gap)" in made.stdout


@pytest.mark.parametrize("flags", [["--mechanisms", "nothing"], ["--audits", "0"]])
def test_flags_of_the_phantom_benchmark_that_make_no_sense_are_refused(flags):
    made = run("phantom.py", *flags)
    assert made.returncode == 2 and flags[0] in made.stderr


@pytest.mark.slow
def test_the_sweep_benchmark_finds_predictions_equal_whatever_the_number_of_jobs():
    made = run("sweep_speed.py", "--vectors", "1500", "--features", "32", "--seeds", "1")
    assert made.returncode == 0, made.stdout + made.stderr
    assert "predictions of 10 trainings equal to the last byte: yes" in made.stdout or "One core" in made.stdout


@pytest.mark.slow
def test_the_benchmark_of_training_speed_races_what_is_installed_to_one_validation_loss():
    made = run("training_speed.py", "--rows", "2000", "--epochs", "2", "--batch-sizes", "64", "--no-small")
    assert made.returncode == 0, made.stdout + made.stderr
    assert "biascxr, TensorFlow" in made.stdout and "validation losses differ by" in made.stdout
    has_torch = importlib.util.find_spec("torch") is not None
    assert ("PyTorch, DataLoader" if has_torch else "pip install torch") in made.stdout


@pytest.mark.slow
def test_the_benchmark_of_training_memory_trains_from_a_map_and_from_memory_alike():
    made = run("training_memory.py", "--rows", "300", "--epochs", "1")
    assert made.returncode == 0, made.stdout + made.stderr
    rows = {line[:34].strip(): line.split()[-1] for line in made.stdout.splitlines() if line.startswith("biascxr, TensorFlow")}
    assert rows["biascxr, TensorFlow, memory map"] == rows["biascxr, TensorFlow, in memory"]
    assert "anonymous memory" in made.stdout


@pytest.mark.parametrize("script", ["training_speed.py", "training_memory.py"])
def test_flags_of_the_training_benchmarks_that_make_no_sense_are_refused(script):
    made = run(script, "--epochs", "0")
    assert made.returncode == 2 and "--epochs" in made.stderr


@pytest.mark.parametrize(
    ("script", "flag", "value"),
    [
        ("embedding_speed.py", "--images", "1"),
        ("ingestion_speed.py", "--films", "-1"),
        ("vector_gathering.py", "--files", "1"),
        ("end_to_end.py", "--films", "4"),
        ("end_to_end.py", "--images", "10"),
    ],
)
def test_flags_of_the_benchmarks_of_records_and_vectors_that_make_no_sense_are_refused(script, flag, value):
    made = run(script, flag, value)
    assert made.returncode == 2 and flag in made.stderr


@pytest.mark.parametrize("flags", [["--worlds", "1"], ["--part", "nothing"], ["--pace"]])
def test_flags_that_make_no_sense_are_refused(flags):
    made = run("audit_calibration.py", *flags)
    assert made.returncode == 2 and flags[0] in made.stderr


class TestRemedies:
    def test_every_method_of_the_tables_has_an_expectation_under_every_mechanism(self):
        from remedy_methods import all_methods, read_expectations

        expectations = read_expectations()
        methods = all_methods(expectations.not_measured)
        assert {name for name, _ in expectations.verdicts} == set(methods)
        assert len(expectations.verdicts) == len(methods) * (len(MECHANISMS) + 1)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda read: read.pop("reweigh"), "expects nothing of: reweigh"),
            (lambda read: read.update(nosuch=read["reweigh"]), "in no table: nosuch"),
            (lambda read: read["leace"].pop(), r"leace: nothing is expected under under_representation"),
            (lambda read: read["pca"].append({"where": "fog", "expect": "help", "because": ""}), "'fog' is unknown"),
        ],
    )
    def test_what_does_not_fit_the_tables_is_named(self, change, message, tmp_path):
        import yaml
        from remedy_methods import EXPECTATIONS, read_expectations

        read = yaml.safe_load(EXPECTATIONS.read_text(encoding="utf-8"))
        change(read)
        path = tmp_path / "expectations.yaml"
        path.write_text(yaml.safe_dump(read), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            read_expectations(path)

    def test_what_a_docstring_says_was_measured_is_what_the_results_say(self):
        from remedy_docs import RESULTS, documented, paragraphs, stale

        table = pd.read_csv(RESULTS)
        assert [str(path) for path, _ in stale(table)] == []  # mend with: python benchmarks/remedy_docs.py
        (_, said), *_ = paragraphs(table.assign(seen="harm", share=-0.25)).items()
        assert "harms under prevalence (-0.25), presentation (-0.25)" in said
        source = 'class A:\n    """What.\n\n    When.\n    """\n\n    x = 1\n'
        once = documented(source, "A", f"{said} First.")
        assert documented(once, "A", f"{said} Second.") == once.replace("First.", "Second.")
        assert once.startswith('class A:\n    """What.\n\n    When.\n\n    Measured on') and once.endswith("    x = 1\n")

    def test_every_method_that_was_measured_and_every_world_is_in_the_committed_results(self):
        from remedy_docs import RESULTS
        from remedy_methods import all_methods, read_expectations

        table = pd.read_csv(RESULTS)
        assert set(table["method"]) == set(all_methods(read_expectations().not_measured))
        assert set(table["mechanism"]) == {"nothing_planted", *MECHANISMS} and set(table["seeds"]) == {5}

    def test_every_method_is_a_recipe_that_parses_with_every_line_of_its_grid(self):
        from remedy_methods import GRIDS, all_methods, read_expectations

        methods = all_methods(read_expectations().not_measured)
        assert set(GRIDS) <= set(methods)
        for name, method in methods.items():
            for settings in ({}, *GRIDS.get(name, [])):
                recipe = method.having(settings).recipe()
                assert method.member in recipe.methods(method.slot)

    def test_losses_are_those_of_scikit_learn_and_their_spread_that_of_a_jackknife(self):
        from remedy_losses import balanced_errors, log_losses
        from sklearn.metrics import balanced_accuracy_score, log_loss

        rng = np.random.default_rng(0)
        patient = rng.integers(0, 60, 200)
        labels, scores = (rng.random((200, 2)) < 0.4).astype(float), rng.uniform(0.02, 0.98, (200, 2))
        flagged = (scores > 0.5).astype(float)
        films = pd.Series(patient).map(pd.Series(patient).value_counts()).to_numpy()

        def peers(rows):
            weight = 1 / films[rows]
            logs = [log_loss(y[rows], s[rows], sample_weight=weight) for y, s in zip(labels.T, scores.T, strict=True)]
            errors = [
                1 - balanced_accuracy_score(y[rows], f[rows], sample_weight=weight)
                for y, f in zip(labels.T, flagged.T, strict=True)
            ]
            return np.mean(logs), np.mean(errors)

        ours = log_losses(labels, scores, patient), balanced_errors(labels, flagged, patient)
        without = np.array([peers(patient != p) for p in np.unique(patient)])
        n = len(without)
        for index, loss in enumerate(ours):
            assert loss.value == pytest.approx(peers(np.full(200, True))[index], abs=1e-12)
            assert loss.influence.mean() == pytest.approx(0, abs=1e-12)
            jackknife = (n - 1) / n * ((without[:, index] - without[:, index].mean()) ** 2).sum()
            assert loss.influence @ loss.influence / (n * (n - 1)) == pytest.approx(jackknife, rel=0.1)

    def test_the_shares_kept_are_those_that_a_t_test_does_not_reject(self):
        from remedy_verdicts import Pairs, share_estimate
        from scipy import stats

        gain, excess = np.array([0.4, 0.7, 0.5, 0.9, 0.6]), np.array([1.0, 1.2, 0.8, 1.5, 1.1])
        share = share_estimate(Pairs(gain, excess, np.zeros((5, 3))))
        for end in (share.low, share.high):
            assert stats.ttest_1samp(gain - end * excess, 0).pvalue == pytest.approx(0.05, abs=1e-9)
        assert share.low < share.value == pytest.approx(gain.sum() / excess.sum())

    def test_where_the_excess_may_be_zero_there_is_no_share_and_patients_widen_what_seeds_make_too_narrow(self):
        from remedy_verdicts import NO_EXCESS, Pairs, share_estimate, verdict

        noise = share_estimate(Pairs(np.full(5, 0.1), np.array([0.1, -0.1, 0.2, -0.1, 0.0]), np.zeros((5, 3))))
        assert np.isnan(noise.value) and verdict(noise, noise) == NO_EXCESS
        alike, excess = np.full(5, 0.5) + 1e-6 * np.arange(5), np.full(5, 1.0)
        narrow = share_estimate(Pairs(alike, excess, np.zeros((5, 3))))
        wide = share_estimate(Pairs(alike, excess, np.tile([0.01, 0.0, 0.0], (5, 1))))
        assert narrow.high - narrow.low < 1e-4 and wide.high - wide.low > 0.2

    def test_verdicts_need_an_interval_off_zero_and_a_gain_beyond_that_without_bias(self):
        from remedy_verdicts import Estimate, agreement, control_verdict, verdict

        beyond, none = Estimate(0.1, 0.05, 0.2), Estimate(0.0, -0.1, 0.1)
        assert verdict(Estimate(0.5, 0.2, 0.8), beyond) == "help"
        assert verdict(Estimate(0.5, 0.2, 0.8), none) == "gains anyway"
        assert verdict(Estimate(0.05, 0.01, 0.09), beyond) == "no_effect"
        assert verdict(Estimate(-0.5, -0.8, -0.2), none) == "harm"
        assert verdict(Estimate(0.1, -0.5, 0.7), beyond) == "unclear"
        assert control_verdict(Estimate(0.02, 0.01, 0.03)) == "harm"
        assert control_verdict(Estimate(0.00, -0.01, 0.01)) == "no_effect"
        assert control_verdict(Estimate(0.00, -0.03, 0.03)) == "unclear"
        assert [agreement("no_effect", seen) for seen in ("gains anyway", "unclear", "harm", "no excess")] == [
            "agrees", "open", "disagrees", "",
        ]  # fmt: skip

    @pytest.mark.parametrize("mechanism", ["selection", "annotation", "acquisition", "prevalence"])
    def test_biased_and_unbiased_films_are_equally_many_and_test_films_tell_the_truth(self, mechanism):
        from remedy_worlds import Sizes, WorldKey, draw_world

        world = draw_world(WorldKey("nonlinear", mechanism, 0.8, 3), Sizes(1500, 60, 60, 1000))
        for split, part in world.biased.parts.items():
            fair = world.unbiased.parts[split]
            assert len(part) == len(fair) > 0
            assert set(part.patient_id) & set(fair.patient_id)
            assert not set(part.patient_id) & set(world.judged.patient.astype(str))
        judged, own = world.judged, world.judged.in_group
        truth = pd.Series(judged.labels[own].mean(axis=1)).groupby(judged.patient[own]).mean().mean()
        biased, unbiased = (rate_of_group_1(films.parts["train"]) for films in (world.biased, world.unbiased))
        assert unbiased == pytest.approx(truth, abs=0.06)
        if mechanism == "acquisition":
            assert biased == unbiased
        else:  # the group's findings are missing from what is learned from, not from the test
            assert biased < 0.5 * min(truth, unbiased)

    def test_unbiased_films_of_a_shortcut_carry_its_marker_by_chance(self):
        from remedy_worlds import Sizes, WorldKey, draw_world

        from biascxr.phantom.vectors import Mixing

        sizes = Sizes(1500, 60, 60, 600)
        world = draw_world(WorldKey("nonlinear", "acquisition", 0.8, 3), sizes)
        mixing = Mixing(world.key.config(sizes))

        def marked(part):
            rows = (part.attributes["race"] == "group 1").to_numpy()
            return mixing.unmix(part.vectors[rows])[:, 9] > 2, part.labels[rows, 0] == 1

        shares = {}
        for name, films in (("biased", world.biased), ("unbiased", world.unbiased)):
            is_marked, has_it = marked(films.parts["train"])
            shares[name] = is_marked[has_it].mean(), is_marked[~has_it].mean()
        assert shares["biased"][0] == pytest.approx(0.8, abs=0.1) and shares["biased"][1] < 0.05
        assert shares["unbiased"][0] == pytest.approx(shares["unbiased"][1], abs=0.08) and shares["unbiased"][1] > 0.1

    @pytest.mark.slow
    def test_a_small_run_prints_its_table_and_goes_on_where_it_stopped(self, tmp_path):
        flags = [
            "--scale", "0.04", "--seeds", "1", "--families", "linear", "--mechanisms", "annotation", "--workers", "1",
            "--methods", "median_balance,group_platt,group_youden", "--folder", str(tmp_path / "worlds"),
            "--csv", str(tmp_path / "t.csv"), "--markdown", str(tmp_path / "t.md"),
        ]  # fmt: skip
        made = run("remedies.py", *flags)
        assert made.returncode == 0, made.stderr
        assert "2 worlds, 0 of them measured before" in made.stdout and "Negative control" in made.stdout
        table = pd.read_csv(tmp_path / "t.csv")
        assert set(table["method"]) == {"median_balance", "group_platt", "group_youden"} and len(table) == 6
        assert "| group_youden | decision |" in (tmp_path / "t.md").read_text(encoding="utf-8")
        again = run("remedies.py", *flags)
        assert "2 worlds, 2 of them measured before" in again.stdout
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), table)

    @pytest.mark.parametrize("flags", [["--mechanisms", "nothing"], ["--seeds", "0"], ["--methods", "nosuch"]])
    def test_flags_of_the_remedies_benchmark_that_make_no_sense_are_refused(self, flags, capsys):
        from remedies import main

        with pytest.raises(SystemExit) as ended:
            main(flags)
        assert ended.value.code == 2 and flags[0] in capsys.readouterr().err


def rate_of_group_1(part) -> float:
    """Positive rate over findings of one group; every patient has one vote, as some have 200 films."""
    rows = (part.attributes["race"] == "group 1").to_numpy()
    return pd.Series(part.labels[rows].mean(axis=1)).groupby(part.patient_id[rows]).mean().mean()


class TestClaims:
    def test_what_the_marginals_allow_is_arithmetic(self):
        from claims import AGE, RACE, arithmetic
        from scipy import stats

        most = np.log(5) / stats.entropy(list(AGE.values())) - 1
        what, _, follows, says = arithmetic()[0]
        assert what == "entropy of age" and f"{most:+.0%} at most" in follows and says == "cannot hold" and most < 0.37
        assert sum(RACE.values()) == pytest.approx(1) and sum(AGE.values()) == pytest.approx(1, abs=2e-4)
        assert [says for _, claimed, _, says in arithmetic() if claimed == ".48"][:3] == ["does not follow"] * 3

    @pytest.mark.parametrize(
        ("ends", "said"),
        [
            ((-0.7, -0.8, -0.6), "as claimed"),
            ((-0.2, -0.3, -0.1), "same direction, less"),
            ((-0.1, -0.3, 0.1), "not seen"),
            ((-0.1, -0.9, 0.7), "not enough evidence"),
            ((0.2, 0.1, 0.3), "the other way round"),
            ((np.nan, np.nan, np.nan), "cannot be told: what it is a share of is not off zero"),
        ],
    )
    def test_a_claim_is_held_against_the_whole_interval(self, ends, said):
        from claim_measures import CLAIMS, verdict
        from remedy_verdicts import Estimate

        assert verdict(CLAIMS[0], Estimate(*ends)) == said

    def test_measures_are_those_of_scikit_learn(self):
        from claim_measures import measures
        from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

        rng = np.random.default_rng(1)
        labels, scores = (rng.random((2000, 2)) < 0.3).astype(float), rng.random((2000, 2))
        decisions, group = (scores > 0.6).astype(float), rng.choice(["a", "b", "c"], 2000, p=[0.6, 0.3, 0.1])
        found = measures(labels, scores, decisions, {"race": group}, np.ones((1, 2000)))
        by = [np.mean([accuracy_score(labels[group == g, i], decisions[group == g, i]) for i in (0, 1)]) for g in "abc"]
        assert found["accuracy max-min, race"][0] == pytest.approx(np.ptp(by))
        assert found["accuracy sd, race"][0] == pytest.approx(np.std(by))
        assert found["AUROC"][0] == pytest.approx(np.mean([roc_auc_score(labels[:, i], scores[:, i]) for i in (0, 1)]))
        own = [average_precision_score(labels[group == "c", i], scores[group == "c", i]) for i in (0, 1)]
        assert found["average precision of minorities, race"][0] == pytest.approx(np.mean(own))

    @pytest.mark.slow
    def test_a_small_run_prints_every_claim_and_says_what_is_not_there(self, tmp_path):
        made = run(
            "claims.py", "--quick", "--scale", "0.03", "--seeds", "1", "--nih", str(tmp_path), "--csv", str(tmp_path / "c.csv")
        )
        assert made.returncode == 0, made.stderr
        assert "nothing is said of real films" in made.stdout and "Gini, race" in made.stdout
        assert set(pd.read_csv(tmp_path / "c.csv")["sampler"]) == {"median_balance", "cluster_downsample"}
