"""What holds of every probe: it finds what is there, nothing else, and never looks at the rows it is judged on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from biascxr.errors import InputError
from biascxr.leakage import PROBES, ProbeRows, find_probe, perceptron
from biascxr.leakage.base import macro_auroc

IMAGES = 3  # of each patient
# A perceptron takes seconds to build; what is fitted twice is marked.
QUICK_FIRST = [pytest.param(name, marks=pytest.mark.slow) if name == "perceptron" else name for name in PROBES]


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    """What is tested here holds of a perceptron that has hardly begun, too."""
    monkeypatch.setattr(perceptron, "MAX_EPOCHS", 12)


def rows(n_patients: int, *, seed: int, strength: float, k: int = 2, identity: float = 0.0, d: int = 6) -> ProbeRows:
    """Patients of k groups; group g moves column g by `strength`; `identity` is the size of a patient's own fingerprint."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), IMAGES)
    codes = rng.choice(k, n_patients, p=np.array([0.5, 0.3, 0.2])[:k] / sum([0.5, 0.3, 0.2][:k]))[patient]
    vectors = rng.normal(size=(len(patient), d)) + identity * rng.normal(size=(n_patients, d))[patient]
    vectors[:, :k] += strength * np.eye(k)[codes]
    vectors /= vectors.std(0)
    return ProbeRows(vectors.astype(np.float32), codes, np.array([f"{seed}-{p}" for p in patient]))


def read(probe: str, train: ProbeRows, test: ProbeRows, *, k: int = 2, seed: int = 0, **keywords):
    return find_probe(probe).read(train, [test.vectors], n_groups=k, seed=seed, **keywords)


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("k", [2, 3])
def test_a_planted_signal_is_found(probe, k):
    train, validation, test = (rows(n, seed=s, strength=2.0, k=k) for s, n in enumerate((300, 100, 200)))
    reading = read(probe, train, test, k=k, validation=validation)
    assert macro_auroc(test.codes, reading.scores[0]) > 0.8
    assert reading.validation_auroc == pytest.approx(macro_auroc(test.codes, reading.scores[0]), abs=0.06)


@pytest.mark.parametrize("probe", PROBES)
def test_an_absent_signal_is_not_found(probe):
    """600 patients judge: the AUROC's standard error is at most .024 were all images of a patient alike."""
    train, test = (rows(n, seed=s, strength=0.0) for s, n in enumerate((200, 600)))
    assert abs(macro_auroc(test.codes, read(probe, train, test).scores[0]) - 0.5) < 0.075


@pytest.mark.parametrize("probe", QUICK_FIRST)
def test_recognising_a_patient_reads_nothing_of_others(probe):
    """Every patient's images look alike, and the probe that remembers rows reads those of its own patients."""
    train, test = (rows(n, seed=s, strength=0.0, identity=6.0) for s, n in enumerate((200, 600)))
    reading = find_probe(probe).read(train, [train.vectors, test.vectors], n_groups=2, seed=0)
    assert abs(macro_auroc(test.codes, reading.scores[1]) - 0.5) < 0.075
    if probe == "knn":  # else the images of a patient would not be alike at all
        assert macro_auroc(train.codes, reading.scores[0]) > 0.75


@pytest.mark.parametrize("probe", QUICK_FIRST)
def test_balance_raises_the_scores_of_the_rare_group(probe):
    rng = np.random.default_rng(0)
    codes = (np.arange(900) % 9 == 0).astype(np.int64)
    train = ProbeRows((rng.normal(size=(900, 4)) + codes[:, None]).astype(np.float32), codes, np.arange(900).astype(str))
    plain, balanced = (read(probe, train, train, is_balanced=b).scores[0][:, 1] for b in (False, True))
    boundary = 0 if probe == "linear_svm" else 0.5
    flagged = [np.mean(scores > boundary) for scores in (plain, balanced)]
    # Groups stand two deviations apart, 8 to 1: the best boundary flags .07 of all rows, with groups that count alike .235.
    assert flagged[0] < 0.12
    assert flagged[0] + 0.1 < flagged[1] < 0.35


@pytest.mark.parametrize("probe", QUICK_FIRST)
def test_same_seed_same_scores(probe):
    train, test = (rows(100, seed=s, strength=1.0) for s in (0, 1))
    first, second = (read(probe, train, test, seed=4).scores[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("probe", QUICK_FIRST)
def test_the_global_generators_are_left_alone(probe):
    train, test = (rows(60, seed=s, strength=1.0) for s in (0, 1))
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the old generator is what is looked at
    first = read(probe, train, test, seed=4).scores[0]
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.random.random(3)  # noqa: NPY002
    np.testing.assert_array_equal(first, read(probe, train, test, seed=4).scores[0])


@pytest.mark.parametrize("probe", QUICK_FIRST)
def test_a_group_without_training_rows_is_nan_and_the_others_are_as_without_it(probe):
    train, test = (rows(100, seed=s, strength=1.0) for s in (0, 1))
    moved = train.with_codes(train.codes * 2)  # groups 0 and 2 of three
    scores = read(probe, moved, test, k=3).scores[0]
    assert np.isnan(scores[:, 1]).all()
    np.testing.assert_array_equal(scores[:, [0, 2]], read(probe, train, test).scores[0])


@pytest.mark.parametrize("probe", QUICK_FIRST)
def test_the_rows_that_are_judged_do_not_matter_to_each_other(probe):
    """Whatever else is scored, a row's scores stay: nothing is chosen or scaled by the rows that are judged."""
    train, validation, test = (rows(100, seed=s, strength=1.0) for s in range(3))
    whole = read(probe, train, test, validation=validation)
    half = ProbeRows(test.vectors[:90], test.codes[:90], test.patient_id[:90])
    part = read(probe, train, half, validation=validation)
    assert part.setting == whole.setting
    np.testing.assert_allclose(part.scores[0], whole.scores[0][:90], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("probe", [name for name in PROBES if len(find_probe(name).grid) > 1])
def test_the_setting_is_the_best_on_validation_rows(probe):
    """Each setting's own validation AUROC, found by a probe of that setting alone."""
    train, validation, test = (rows(n, seed=s, strength=0.6) for s, n in enumerate((60, 100, 100)))
    values = {}
    for setting in find_probe(probe).grid:
        single = type(find_probe(probe))()
        single.grid = (setting,)
        own = single.read(train, [test.vectors], n_groups=2, validation=validation, seed=0)
        values[setting] = own.validation_auroc
    chosen = read(probe, train, test, validation=validation)
    assert len(set(values.values())) > 1
    assert chosen.validation_auroc == pytest.approx(max(values.values()), abs=2e-3)
    assert values[chosen.setting] == pytest.approx(max(values.values()), abs=2e-3)


def test_knn_is_scikit_learns():
    train, test = (rows(150, seed=s, strength=1.0, k=3) for s in (0, 1))
    peer = KNeighborsClassifier(5).fit(train.vectors.astype(float), train.codes).predict_proba(test.vectors.astype(float))
    np.testing.assert_allclose(read("knn", train, test, k=3).scores[0], peer, atol=1e-12)


def test_knn_asks_for_no_more_neighbours_than_there_are():
    train, validation = (rows(n, seed=s, strength=1.0) for s, n in enumerate((4, 30)))
    assert len(train) < max(find_probe("knn").grid)
    reading = read("knn", train, validation, validation=validation)
    np.testing.assert_allclose(reading.scores[0].sum(1), 1)


@pytest.mark.parametrize("k", [2, 3])
def test_linear_svm_is_scikit_learns(k):
    train, test = (rows(150, seed=s, strength=1.0, k=k) for s in (0, 1))
    peer = LinearSVC(C=0.001, dual=False).fit(train.vectors, train.codes)
    scores = read("linear_svm", train, test, k=k).scores[0]
    for g in range(k):
        own = peer.decision_function(test.vectors)
        own = own * (2 * g - 1) if k == 2 else own[:, g]
        assert roc_auc_score(test.codes == g, scores[:, g]) == pytest.approx(roc_auc_score(test.codes == g, own), abs=1e-3)


def test_an_unknown_probe_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'logistic'"):
        find_probe("logistics")


def test_finding_a_probe_loads_neither_tensorflow_nor_scikit_learn():
    code = (
        "import sys, biascxr.leakage as l; l.find_probe('knn'), l.find_probe('logistic'), l.find_probe('linear_svm'); "
        "l.find_probe('perceptron'); sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
