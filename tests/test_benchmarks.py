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
@pytest.mark.parametrize(
    ("script", "part", "figures"),
    [("leakage_calibration.py", "folds,power", 16), ("dependence_calibration.py", "size,frozen", 12)],
)
def test_the_calibration_benchmarks_of_leakage_print_figures_beside_their_targets(script, part, figures):
    made = run(script, "--worlds", "5", "--part", part)
    assert made.returncode == 0, made.stdout + made.stderr
    assert f"{figures} of {figures} figures with a target are met" in made.stdout
    assert run(script, "--part", "sizes").returncode == 2


def test_a_calibration_figure_outside_its_target_is_said_to_fall_short():
    from calibration_figures import Figure

    hits = np.arange(1000) < 90
    assert "FALLS SHORT" in Figure("size", "", "", hits, (0.04, 0.065)).line()
    assert "met" in Figure("size", "", "", hits[20:], (0.04, 0.065)).line()
    assert "FALLS SHORT" not in Figure("size", "", "", hits, None).line()


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

    def test_rows_that_are_joined_to_an_earlier_table_stand_where_they_stood(self):
        from remedies import joined
        from remedy_docs import RESULTS

        table = pd.read_csv(RESULTS)
        known, renewed = list(table["method"].drop_duplicates()), table["method"].isin(["dann", "platt"])
        pd.testing.assert_frame_equal(joined(table[~renewed], table[renewed], known), table)
        assert set(joined(table, table[renewed], ["dann", "platt"])["method"]) == {"dann", "platt"}

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

    def test_worlds_beyond_the_first_workers_are_measured_too(self, tmp_path, monkeypatch):
        import remedies
        from remedy_worlds import NOTHING, Sizes, WorldKey
        from work_jobs import write_one_row

        monkeypatch.setattr(remedies, "WORLDS_PER_WORKER", 1)
        keys = [WorldKey("linear", NOTHING, 0.0, seed) for seed in range(1, 6)]
        found = remedies.measure_worlds(keys, Sizes(), [], tmp_path, 2, job=write_one_row)
        assert list(found["world"]) == [key.name for key in keys]

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
            "claims.py", "--paper", "biascxr", "--quick", "--scale", "0.03", "--seeds", "1", "--nih", str(tmp_path),
            "--csv", str(tmp_path / "c.csv"),
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        assert "nothing is said of real films" in made.stdout and "Gini, race" in made.stdout
        assert set(pd.read_csv(tmp_path / "c.csv")["compared"]) == {"median_balance", "cluster_downsample"}

    @pytest.mark.parametrize(
        ("ends", "said"),
        [
            ((-0.002, -0.006, 0.002), "as claimed"),
            ((-0.009, -0.03, 0.01), "not enough evidence"),
            ((-0.05, -0.07, -0.03), "the other way round"),
        ],
    )
    def test_a_utility_that_is_kept_needs_the_whole_interval_above_the_margin(self, ends, said):
        from claim_measures import UTILITY_CLAIM, verdict
        from remedy_verdicts import Estimate

        assert verdict(UTILITY_CLAIM, Estimate(*ends)) == said

    def test_every_rule_of_fairread_is_measured_on_plain_training_too(self):
        from claim_methods import comparisons

        compared = comparisons("fairread")
        claims = {training: [c.claim for c in compared if c.after.training == training] for training in ("refusion", "erm")}
        assert len(claims["erm"]) == 4 and claims["refusion"][:4] == claims["erm"]
        assert all(c.before.recipe(("race",)) for c in comparisons("fairread") if c.before.is_there)

    @pytest.mark.slow
    def test_a_small_run_of_a_training_papers_claims_has_a_verdict_for_each(self, tmp_path):
        flags = ["--paper", "fairread", "--quick", "--scale", "0.05", "--seeds", "2", "--nih", str(tmp_path)]
        made = run("claims.py", *flags, "--csv", str(tmp_path / "c.csv"))
        assert made.returncode == 0, made.stderr
        table = pd.read_csv(tmp_path / "c.csv")
        assert set(table["paper"]) == {"fairread"} and table["verdict"].notna().all()
        assert "erm+group_min_gap against erm+threshold_0.5" in set(table["compared"])


class TestAblations:
    def test_expectations_cover_every_line_world_judged_and_measure(self):
        from ablation_lines import ERM, JUDGED, LINES, MEASURES, WORLDS, read_expectations

        expected = read_expectations()
        assert len(expected) == (len(LINES) - 1) * len(WORLDS) * len(JUDGED) * len(MEASURES)
        assert ERM.name not in {line for line, *_ in expected}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda read: read.pop("two_step"), "differ in: two_step"),
            (lambda read: read["erm_min_gap"].pop(), "erm_min_gap: nothing is expected under nothing_planted"),
            (lambda read: read["fairread"][0].update(where="fog"), "'fog' judged 'unbiased' is unknown"),
            (lambda read: read["fairread"][0].update(expect={"delta_eo": "better"}), "each lower, same or higher"),
        ],
    )
    def test_an_expectation_that_does_not_fit_is_named(self, change, message, tmp_path):
        import yaml
        from ablation_lines import EXPECTATIONS, read_expectations

        read = yaml.safe_load(EXPECTATIONS.read_text(encoding="utf-8"))
        change(read)
        (tmp_path / "e.yaml").write_text(yaml.safe_dump(read), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            read_expectations(tmp_path / "e.yaml")

    @pytest.mark.parametrize("attributes", [("race",), ("sex", "age_group")])
    def test_every_line_is_a_recipe_and_names_the_attributes_that_there_are(self, attributes):
        from ablation_lines import LINES, same_rule

        for line in [line for line in LINES if line.is_there]:
            recipe = line.recipe(attributes)
            assert recipe.methods("training") == (line.training,) and recipe.methods("decision") == (line.rule,)
            assert f"[{','.join(attributes)}]" in recipe.name or not (line.groups_in or line.is_per_group)
            assert same_rule(line).rule == line.rule

    def test_gaps_are_those_of_the_package_finding_by_finding(self):
        from ablation_measures import fairness

        from biascxr.metrics import auroc, auroc_gap, bnsp_auroc, equalized_odds_difference

        rng = np.random.default_rng(0)
        labels, scores = (rng.random((900, 3)) < [0.4, 0.3, 0.01]).astype(float), rng.random((900, 3))
        decisions, group = (scores > 0.6).astype(float), rng.choice(["a", "b", "unknown"], 900, p=[0.6, 0.3, 0.1])
        weights = np.stack([np.ones(900), rng.integers(0, 4, 900)]).astype(float)
        found = fairness(labels, scores, decisions, group, weights)
        known = group != "unknown"
        for r, w in enumerate(weights):
            pairs = [(labels[:, j], scores[:, j], decisions[:, j]) for j in (0, 1)]  # the third is too rare in a group
            assert found["delta_eo"][r] == pytest.approx(
                np.mean([equalized_odds_difference(y, d, group, w) for y, _, d in pairs])
            )
            assert found["delta_auc"][r] == pytest.approx(np.mean([auroc_gap(y, s, group, w) for y, s, _ in pairs]))
            assert found["auroc"][r] == pytest.approx(np.mean([auroc(labels[:, j], scores[:, j], w) for j in range(3)]))
            by = [
                np.mean([bnsp_auroc(y[known], s[known], group[known] == g, w[known]) for y, s, _ in pairs]) for g in ("a", "b")
            ]
            assert found["bnsp_sd"][r] == pytest.approx(np.std(by))

    def test_one_group_has_no_gap_to_measure(self):
        from ablation_measures import fairness

        labels, scores = np.tile([0.0, 1.0], 50)[:, None], np.linspace(0, 1, 100)[:, None]
        found = fairness(labels, scores, scores > 0.5, np.full(100, "a"), np.ones((2, 100)))
        assert np.isnan(found["delta_eo"]).all() and np.isnan(found["bnsp_sd"]).all() and (found["auroc"] > 0.4).all()

    def test_a_threshold_moves_decisions_and_leaves_scores_and_heads_alone(self):
        from ablation_lines import LINES
        from ablation_measures import measure
        from ablation_worlds import draw, key_of
        from remedy_worlds import Sizes

        lines = [line for line in LINES if line.training == "erm"]
        found = measure(draw(key_of("prevalence", 1), Sizes(200, 40, 80, 2000)), lines)
        assert set(found["judged"]) == {"unbiased", "same_law"} and len(found) == 2 * len(lines)
        for _, own in found.groupby("judged"):
            by = own.set_index("line")
            assert by["auroc"].nunique() == by["seconds"].nunique() == 1 < by["delta_eo"].nunique()
            assert by["flips"]["erm_min_gap"] == 0 < by["flips"]["fairread_thresholds"]

    def test_only_positives_of_women_are_hidden_and_about_as_many_as_asked_for(self):
        from ablation_worlds import with_hidden_positives

        from biascxr.mitigation import SplitData

        rng = np.random.default_rng(0)
        labels = np.where(rng.random((4000, 2)) < 0.05, np.nan, rng.random((4000, 2)) < 0.4).astype(np.float32)
        sex, ids = rng.choice(["F", "M"], 4000), np.arange(4000).astype(str).astype(object)
        part = SplitData("train", np.zeros((4000, 1), np.float32), labels, pd.DataFrame({"sex": sex}), ids, ("a", "b"), ids)
        left = with_hidden_positives(part, 0.3, rng).labels
        women = sex == "F"
        np.testing.assert_array_equal(left[~women], labels[~women])
        assert np.nansum(left[women]) / np.nansum(labels[women]) == pytest.approx(0.7, abs=0.04)
        np.testing.assert_array_equal(np.isnan(left), np.isnan(labels))
        assert not (left[labels == 0] == 1).any()

    def test_a_row_of_two_attributes_is_in_their_crossing_or_in_none(self):
        from ablation_worlds import joint_groups

        table = pd.DataFrame({"sex": ["F", "M", "unknown"], "age_group": ["0-60", "unknown", "60+"]})
        assert joint_groups(table).tolist() == ["F / 0-60", "unknown", "unknown"]

    def test_verdicts_need_an_interval_off_zero_and_a_change_of_a_margin(self):
        from ablation_report import agreement, seen
        from remedy_verdicts import Estimate

        assert (
            seen("delta_eo", Estimate(0.05, 0.01, 0.09)) == "higher" and seen("auroc", Estimate(-0.02, -0.03, -0.01)) == "lower"
        )
        assert seen("delta_eo", Estimate(0.01, 0.005, 0.015)) == "same"  # off zero, and too little to count
        assert seen("delta_eo", Estimate(0.05, -0.02, 0.12)) == "unclear"
        assert seen("delta_eo", Estimate(np.nan, np.nan, np.nan)) == "undefined"
        said = [agreement("lower", found) for found in ("lower", "same", "unclear", "undefined")]
        assert said == ["agrees", "disagrees", "open", ""]

    def test_folds_that_share_training_patients_have_wider_intervals_than_worlds_of_their_own(self):
        from ablation_report import estimate

        values = np.array([0.1, 0.2, 0.15, 0.12, 0.18])
        worlds, folds = estimate(values, "annotation"), estimate(values, "nih")
        widths = [e.high - e.low for e in (worlds, folds)]
        assert worlds.value == folds.value and widths[1] / widths[0] == pytest.approx(np.sqrt(1 + 5 * (0.2 / 0.6)))

    def test_fate_of_the_baseline_is_zero_and_falls_with_a_wider_gap(self):
        from ablation_report import _fates

        def of(gap, auroc=0.8):
            return pd.DataFrame({"delta_eo": np.array([0.2, 0.22, 0.21]) * gap, "auroc": auroc}, index=[1, 2, 3])

        assert _fates("delta_eo", "annotation", of(1), of(1))["value"] == pytest.approx(0)
        assert _fates("delta_eo", "annotation", of(1.5), of(1))["value"] == pytest.approx(-0.5)
        assert _fates("delta_eo", "annotation", of(1, 0.84), of(1))["value"] == pytest.approx(0.05)

    def test_two_hospitals_share_no_patient_and_speak_of_the_same_vectors(self, tmp_path):
        from ablation_sites import write_sites
        from remedy_worlds import Sizes

        home, away = (pd.read_csv(site.table) for site in write_sites(tmp_path, Sizes(300, 50, 100, 100)))
        numbers = [set(own["subject_id"].str.extract(r"(\d+)")[0]) for own in (home, away)]
        assert not numbers[0] & numbers[1]
        finding = home.columns[7:]
        rates = [own.groupby("race")[list(finding)].mean().mean(axis=1) for own in (home, away)]
        assert rates[0]["group 1"] < 0.5 * rates[1]["group 1"]  # overlooked at home, and only there
        assert (away["race"] == "group 0").mean() < 0.7 * (home["race"] == "group 0").mean()
        with np.load(tmp_path / "away" / "vectors.npz") as kept:
            assert kept["image_ids"].tolist() == away["dicom_id"].tolist() and kept["embeddings"].shape[1] == 32

    @pytest.mark.slow
    def test_a_small_run_prints_its_table_and_goes_on_where_it_stopped(self, tmp_path):
        flags = [
            "--scale", "0.05", "--seeds", "2", "--worlds", "annotation,nih", "--lines", "fairread_thresholds", "--workers", "1",
            "--nih", str(tmp_path), "--folder", str(tmp_path / "worlds"), "--csv", str(tmp_path / "t.csv"),
            "--markdown", str(tmp_path / "t.md"),
        ]  # fmt: skip
        made = run("ablations.py", *flags)
        assert made.returncode == 0, made.stderr
        assert "nothing is said of real films" in made.stdout and "Expected and seen" in made.stdout
        table = pd.read_csv(tmp_path / "t.csv")
        assert set(table["line"]) == {"erm", "fairread_thresholds"} and set(table["judged"]) == {"unbiased", "same_law"}
        assert "| `fairread_thresholds` |" in (tmp_path / "t.md").read_text(encoding="utf-8")
        again = run("ablations.py", *flags)
        assert "2 worlds, 2 of them measured before" in again.stdout
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), table)

    @pytest.mark.slow
    def test_a_small_external_evaluation_has_both_sides_of_every_whole_recipe(self, tmp_path):
        from ablation_lines import LINES
        from ablation_sites import WHOLE, external_evaluation
        from remedy_worlds import Sizes

        found = external_evaluation(tmp_path, Sizes().scaled(0.1))
        assert set(found["line"]) == {"erm", *(line.name for line in LINES if line.name in WHOLE and line.is_there)}
        assert found.notna().all(axis=None)

    @pytest.mark.parametrize("flags", [["--worlds", "fog"], ["--seeds", "0"], ["--lines", "nosuch"]])
    def test_flags_of_the_ablations_that_make_no_sense_are_refused(self, flags, capsys):
        from ablations import main

        with pytest.raises(SystemExit) as ended:
            main(flags)
        assert ended.value.code == 2 and flags[0] in capsys.readouterr().err
