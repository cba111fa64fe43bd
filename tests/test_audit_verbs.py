"""`biascxr audit --predictions`, `select` and `power` from the command line, and the page they leave."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from biascxr.audit import AuditResult
from biascxr.cli import main
from biascxr.report.audit_figures import plot_finding_differences
from biascxr.report.audit_page import adjusted_rows

LABELS = ("Edema", "Mass")


def table(seed: int = 0, n_patients: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), 2)
    n = len(patient)
    sex = np.where(np.arange(n_patients) < 6, "X", rng.choice(["F", "M"], n_patients))[patient]  # six patients of a rare group
    frame = pd.DataFrame(
        {"image_id": [f"IMG{i:05d}" for i in range(n)], "patient_id": [f"PAT{p:05d}" for p in patient], "sex": sex}
    )
    frame["view"] = rng.choice(["AP", "PA"], n)
    for label in LABELS:
        y = (rng.random(n) < 0.3).astype(int)
        frame[f"true_{label}"] = y
        frame[f"prob_{label}"] = 1 / (1 + np.exp(-(rng.normal(1.5 * y - 1, 1))))
    return frame


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """Folder of an audit with a baseline, adjusted for view."""
    folder = tmp_path_factory.mktemp("audit")
    frame = table()
    frame.to_csv(folder / "new.csv", index=False)
    frame.assign(prob_Edema=frame["prob_Edema"].to_numpy()[::-1]).to_csv(folder / "old.csv", index=False)
    flags = ["--predictions", folder / "new.csv", "--baseline", folder / "old.csv", "--attributes", "sex", "--adjust", "view"]
    flags += ["--n_replicates", "60", "--n_permutations", "60", "--output_dir", folder / "out"]
    assert main(["audit", *map(str, flags)]) == 0
    return folder / "out"


def test_an_audit_leaves_tables_page_and_what_made_it(audited):
    names = {p.name for p in audited.iterdir()}
    assert names >= {
        "metrics.csv", "gaps.csv", "tests.csv", "comparisons.csv", "cross_auroc.csv", "adjusted.csv", "thresholds.csv",
        "report.html", "config.yaml", "versions.json", "operating_points.png",
    }  # fmt: skip
    assert not [p for p in audited.parent.iterdir() if p.name.endswith(".partial")]
    metrics = pd.read_csv(audited / "metrics.csv")
    columns = ["recipe", "label", "attribute", "group", "metric", "value", "low", "high", "n", "n_positive", "n_patients"]
    assert set(columns) <= set(metrics) and set(metrics["recipe"]) == {"old", "new"}


def test_the_page_holds_no_identifier_no_path_and_no_group_of_six(audited):
    page = (audited / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    assert "PAT0" not in text and "IMG0" not in text and str(audited.parent) not in text
    row = text[text.index("<td>X</td>") :][:200]
    assert "&lt;10" in row or "fewer than 10" in row
    assert "fewer than 10 patients: not shown" in text


def test_no_figure_and_no_table_of_the_page_tells_of_a_group_of_six(audited, monkeypatch, tmp_path):
    result = AuditResult.load(audited)
    assert (result.adjusted["group"] == "X").any()  # the complete table has them, the page's rows do not
    assert {row["group"] for row in adjusted_rows(result.adjusted, result.metrics, "new")} == {"F", "M"}
    shown = []
    monkeypatch.setattr("seaborn.heatmap", lambda data, **options: shown.append((data, options["annot"])))
    plot_finding_differences(result.metrics, result.tests, "new", "sex", 0.95, tmp_path)
    assert len(shown) == 3
    for data, text in shown:
        assert data["X"].isna().all() and (text["X"] == "").all()
        assert data["F"].notna().all() and (text["F"] != "").all()


def test_the_page_answers_in_words(audited):
    page = (audited / "report.html").read_text(encoding="utf-8")
    for question in ("How good is it?", "How unfair is it?", "On which findings?", "Is one fairer than the other?"):
        assert question in page
    assert "macro AUROC of everyone" in page and "Like with like" in page
    # It is about the predictions given, and compares them with the baseline.
    assert "<h1>Fairness audit: new</h1>" in page and "Against old, paired" in page and "beside old" in page
    metrics = pd.read_csv(audited / "metrics.csv").set_index(["recipe", "label", "attribute", "metric"])
    assert f"Macro AUROC {metrics.loc[('new', 'macro', 'overall', 'AUROC'), 'value']:.3f}" in page
    assert "nan" not in re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page).lower().replace("finance", "")


def test_a_second_audit_replaces_the_first_and_a_failed_one_leaves_it(audited, capfd):
    before = (audited / "metrics.csv").read_bytes()
    flags = ["--predictions", audited.parent / "new.csv", "--attributes", "sex", "--output_dir", audited, "--metrics", "AURC"]
    assert main(["audit", *map(str, flags)]) == 2
    assert "Did you mean 'AUROC'" in capfd.readouterr().err
    assert (audited / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--predictions preds.csv"),
        (["--predictions", "nowhere.csv"], "no such file"),
        (["--predictions", "new.csv", "--attributes", "sexx"], "Did you mean 'sex'"),
        (["--predictions", "new.csv", "--crossings", "sex x rice"], "rice"),
        (["--predictions", "new.csv", "--adjust", "veiw"], "Did you mean 'view'"),
        (["--predictions", "new.csv", "--thresholds_from", "new.csv"], "240 of 240 patients"),
        (["--predictions", "new.csv", "--threshold_rule", "fixed_tpr"], "target"),
        (["--predictions", "new.csv", "--n_replicates", "3"], "at least 50"),
    ],
)  # fmt: skip
def test_what_cannot_be_audited_is_said(flags, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    table().to_csv("new.csv", index=False)
    try:
        status = main(["audit", *flags])
    except SystemExit as stopped:  # tyro says it and stops, for what a configuration refuses
        status = stopped.code
    assert status == 2
    said = capfd.readouterr()
    assert message in " ".join((said.err + said.out).replace("│", " ").split())
    assert not (tmp_path / "output").exists()


def test_an_audit_of_predictions_loads_no_tensorflow(tmp_path):
    table(n_patients=60).to_csv(tmp_path / "new.csv", index=False)
    flags = f"'audit', '--predictions', '{tmp_path}/new.csv', '--n_replicates', '50', '--output_dir', '{tmp_path}/out'"
    code = (
        f"import sys; from biascxr.cli import main; status = main([{flags}]); sys.exit(status or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_select_names_the_better_model_and_what_it_costs_on_test(tmp_path, capfd):
    frame = table()
    frame["split"] = np.where(frame["patient_id"].str[3:].astype(int) % 2 == 0, "validation", "test")
    frame.to_csv(tmp_path / "good.csv", index=False)
    noise = np.random.default_rng(0)
    bad = frame.assign(**{f"prob_{x}": noise.random(len(frame)) for x in LABELS})
    bad.to_csv(tmp_path / "bad.csv", index=False)
    flags = [
        "--predictions",
        tmp_path / "bad.csv",
        tmp_path / "good.csv",
        "--attribute",
        "sex",
        "--output_dir",
        tmp_path / "out",
    ]
    assert main(["select", *map(str, flags)]) == 0
    chosen = pd.read_csv(tmp_path / "out" / "chosen.csv").set_index("rule")
    assert (chosen.loc[["overall", "worst_group", "minimax_pareto", "distance_to_optimal"], "candidate"] == "good").all()
    candidates = pd.read_csv(tmp_path / "out" / "candidates.csv").set_index("candidate")
    assert candidates.loc["good", "regret_overall"] == 0 and candidates.loc["bad", "regret_overall"] > 0.2
    assert (pd.read_csv(tmp_path / "out" / "regret_on_test.csv")["regret"].dropna() >= 0).all()
    assert "chosen on validation, regret on test" in capfd.readouterr().err


def test_select_needs_two_candidates_and_a_metric_where_more_is_better(tmp_path, capfd):
    table().to_csv(tmp_path / "one.csv", index=False)
    path = str(tmp_path / "one.csv")
    assert main(["select", "--predictions", path, "--attribute", "sex"]) == 2
    assert "one candidate only" in capfd.readouterr().err
    assert main(["select", "--predictions", path, path, "--attribute", "sex", "--metric", "FPR"]) == 2
    assert "higher is better" in capfd.readouterr().err
    assert main(["select", "--attribute", "sex"]) == 2


def test_select_refuses_candidates_that_are_about_other_labels(tmp_path, capfd):
    frame = table()
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.assign(true_Edema=1 - frame["true_Edema"]).to_csv(tmp_path / "b.csv", index=False)
    assert main(["select", "--predictions", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--attribute", "sex"]) == 2
    assert "different findings or labels" in capfd.readouterr().err


def test_select_averages_over_the_same_findings_for_every_candidate(tmp_path):
    """A PPV rests on the flagged patients: one candidate flags nobody with a finding, which then counts for neither."""
    frame = table()
    for label in LABELS:
        frame[f"decision_{label}"] = (frame[f"prob_{label}"] > 0.5).astype(int)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.assign(decision_Mass=0).to_csv(tmp_path / "b.csv", index=False)
    flags = ["--predictions", tmp_path / "a.csv", tmp_path / "b.csv", "--attribute", "sex", "--metric", "PPV"]
    assert main(["select", *map(str, flags), "--output_dir", str(tmp_path / "out")]) == 0
    candidates = pd.read_csv(tmp_path / "out" / "candidates.csv").set_index("candidate")
    flagged = frame[frame["decision_Edema"] == 1]
    assert candidates.loc["a", "overall"] == candidates.loc["b", "overall"] == pytest.approx(flagged["true_Edema"].mean())


def test_select_says_what_it_left_out(tmp_path, capfd):
    frame = table()
    frame.loc[3, [f"prob_{x}" for x in LABELS]] = np.nan
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv", index=False)
    flags = ["--predictions", tmp_path / "a.csv", tmp_path / "b.csv", "--attribute", "sex", "--output_dir", tmp_path / "out"]
    assert main(["select", *map(str, flags)]) == 0
    assert "a.csv: 1 of 480 rows have no score for any label and are left out" in capfd.readouterr().err


def test_power_from_sizes_and_from_a_table(tmp_path, capfd):
    assert main(["power", "--sizes", "A=4000,B=1000", "--prevalence", "0.1", "--output", str(tmp_path / "power.csv")]) == 0
    made = pd.read_csv(tmp_path / "power.csv")
    assert list(made["group"]) == ["A", "B"] and (made["detectable_TPR"] > 0).all()
    assert "seen with power 0.8" in capfd.readouterr().err
    table().drop(columns=[f"prob_{x}" for x in LABELS]).to_csv(tmp_path / "plan.csv", index=False)
    flags = ["--table", tmp_path / "plan.csv", "--attributes", "sex", "--output", tmp_path / "table.csv"]
    assert main(["power", *map(str, flags)]) == 0
    made = pd.read_csv(tmp_path / "table.csv")
    assert set(made["label"]) == set(LABELS) and set(made["n_tests"]) == {2}
    assert (made["detectable_TPR_adjusted"] > made["detectable_TPR"]).any()
    assert main(["power"]) == 2
    assert main(["power", "--sizes", "A"]) == 2
    assert "GROUP=PATIENTS" in capfd.readouterr().err
