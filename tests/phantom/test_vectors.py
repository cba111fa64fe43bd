"""What the vector phantom holds, what each mechanism changes in it, and what can be read from it."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from biascxr.config import SPLITS
from biascxr.phantom.bayes import fair_law
from biascxr.phantom.mechanisms import MECHANISMS
from biascxr.phantom.population import GROUP_SHARES
from biascxr.phantom.vectors import Mixing, VectorConfig, VectorPhantom, draw_vectors

GROUP, MARKED = 2, 3
MAY_CHANGE = {
    "prevalence": {"labels", "recorded", "vectors", "bayes_scores"},
    "presentation": {"vectors", "bayes_scores"},
    "annotation": {"recorded"},
    "acquisition": {"marker", "vectors", "bayes_scores"},
    "selection": {"bayes_scores"},
    "under_representation": set(),
}
# In test the marker goes with nothing, so it changes what is seen but not what can be known; and nobody is left out.
MAY_CHANGE_IN_TEST = MAY_CHANGE | {"acquisition": {"marker", "vectors"}, "selection": set()}
STRENGTHS = (0.0, 0.3, 0.7, 1.0)


@pytest.fixture(scope="module")
def drawn():
    """Function `(mechanism, strength) -> VectorPhantom`, each drawn once."""
    made = {}

    def draw(mechanism: str, strength: float) -> VectorPhantom:
        if (mechanism, strength) not in made:
            config = VectorConfig(
                n_patients=6000, mechanism=mechanism, strength=strength, disadvantaged_group=GROUP, marked_label=MARKED
            )
            made[mechanism, strength] = draw_vectors(config)
        return made[mechanism, strength]

    return draw


def columns(phantom: VectorPhantom, rows=slice(None)) -> dict[str, np.ndarray]:
    fields = (field.name for field in dataclasses.fields(phantom) if field.name != "config")
    return {name: getattr(phantom, name)[rows] for name in fields}


def assert_same(first: dict, second: dict):
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def in_both(weak, strong) -> tuple[np.ndarray, np.ndarray]:
    _, first, second = np.intersect1d(weak.image, strong.image, return_indices=True)
    return first, second


def test_every_mechanism_has_its_claims_here():
    assert set(MAY_CHANGE) == set(MECHANISMS)


def test_groups_splits_and_images_have_their_shares(drawn):
    phantom = drawn("presentation", 0.0)
    patients, first, n_images = np.unique(phantom.patient, return_index=True, return_counts=True)
    assert len(patients) == 6000
    for name in ("group", "split"):
        np.testing.assert_array_equal(getattr(phantom, name), getattr(phantom, name)[first][phantom.patient])
    np.testing.assert_allclose(np.bincount(phantom.group[first]) / 6000, GROUP_SHARES, atol=0.02)
    for split, share in zip(SPLITS, (0.6, 0.1, 0.1, 0.2), strict=True):
        assert (phantom.split[first] == split).sum() == round(share * 6000)
    assert n_images.min() == 1 and n_images.max() == 200 and 2.0 < n_images.mean() < 2.3
    assert phantom.vectors.dtype == np.float32 and phantom.vectors.shape == (len(phantom), 64)


def test_a_fair_phantom_has_the_stated_rates_in_every_group_and_labels_that_go_together(drawn):
    phantom = drawn("presentation", 0.0)
    for group in range(len(GROUP_SHARES)):
        labels = phantom.labels[phantom.group == group]
        np.testing.assert_allclose(labels.mean(axis=0), fair_law(14, marked_label=0).prevalence(), atol=0.05)
    correlation = np.corrcoef(phantom.labels.T)
    assert correlation.min() > 0.05 and correlation[~np.eye(14, dtype=bool)].max() > 0.25


def test_images_of_one_patient_share_the_kind_of_patient_and_nothing_else():
    phantom = draw_vectors(VectorConfig(n_patients=60_000, strength=0.0, dimensions=18))
    _, first, n_images = np.unique(phantom.patient, return_index=True, return_counts=True)
    one, another = (phantom.labels[first[n_images > 1] + i].astype(float) for i in (0, 1))
    fair = fair_law(14, marked_label=0)
    # Labels are independent given the class, so two images go together as far as the classes' rates differ.
    between = np.cov(fair.rates, rowvar=False, aweights=fair.class_shares, ddof=0)
    covariance = np.cov(one, another, rowvar=False)[:14, 14:]
    np.testing.assert_allclose(covariance, between, atol=0.009)
    assert between.min() > 0.01


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_strength_0_is_one_fair_phantom_to_the_last_byte(drawn, mechanism):
    phantom = drawn(mechanism, 0.0)
    assert_same(columns(phantom), columns(drawn("presentation", 0.0)))
    np.testing.assert_array_equal(phantom.recorded, phantom.labels)
    np.testing.assert_array_equal(phantom.image, np.arange(len(phantom)))
    assert not phantom.marker.any()


@pytest.mark.parametrize("family", ["linear", "nonlinear"])
def test_the_same_configuration_draws_the_same_bytes_and_another_seed_others(family):
    config = VectorConfig(n_patients=500, mechanism="selection", family=family)
    assert_same(columns(draw_vectors(config)), columns(draw_vectors(config)))
    other = draw_vectors(dataclasses.replace(config, seed=1))
    assert not np.isin(other.vectors, draw_vectors(config).vectors).any(axis=1).all()


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("strength", STRENGTHS[1:])
def test_everyone_else_stays_as_they_were(drawn, mechanism, strength):
    fair, biased = drawn(mechanism, 0.0), drawn(mechanism, strength)
    assert_same(columns(fair, fair.group != GROUP), columns(biased, biased.group != GROUP))


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("is_test", [False, True])
def test_a_mechanism_changes_what_it_says_and_nothing_else(drawn, mechanism, is_test):
    fair, biased = drawn(mechanism, 0.0), drawn(mechanism, 0.7)
    first, second = in_both(fair, biased)
    kept = (fair.split[first] == "test") == is_test
    before, after = columns(fair, first[kept]), columns(biased, second[kept])
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == (MAY_CHANGE_IN_TEST if is_test else MAY_CHANGE)[mechanism]


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("weaker", "stronger"), list(itertools.pairwise(STRENGTHS)))
def test_what_happens_at_one_strength_happens_at_every_larger_one(drawn, mechanism, weaker, stronger):
    weak, strong = drawn(mechanism, weaker), drawn(mechanism, stronger)
    assert set(strong.image) <= set(weak.image)
    first, second = in_both(weak, strong)
    assert not (strong.labels[second] & ~weak.labels[first]).any()
    assert not (strong.recorded[second] & ~weak.recorded[first]).any()
    assert not (weak.marker[first] & ~strong.marker[second]).any()


@pytest.mark.parametrize("mechanism", ["selection", "under_representation"])
@pytest.mark.parametrize("strength", STRENGTHS[1:])
def test_who_is_left_out_is_left_out_of_what_is_learned_from_only(drawn, mechanism, strength):
    fair, biased = drawn(mechanism, 0.0), drawn(mechanism, strength)
    assert_same(columns(fair, fair.split == "test"), columns(biased, biased.split == "test"))
    at_risk = (fair.group == GROUP) & (fair.split != "test")
    gone = ~np.isin(fair.image, biased.image)
    if mechanism == "selection":
        n_labels = fair.labels.sum(axis=1)
        for k in (1, 2, 3):  # the more there is, the less often it enters
            assert abs(gone[at_risk & (n_labels == k)].mean() - (1 - (1 - strength) ** k)) < 0.06
        at_risk &= n_labels > 0
    else:  # whole patients, and those who stay know no difference
        patients = np.unique(fair.patient[at_risk])
        assert abs((~np.isin(patients, biased.patient)).mean() - strength) < 0.04
        np.testing.assert_array_equal(gone, at_risk & ~np.isin(fair.patient, biased.patient))
    assert not gone[~at_risk].any()


@pytest.mark.parametrize(("mechanism", "name"), [("prevalence", "labels"), ("annotation", "recorded")])
@pytest.mark.parametrize("strength", STRENGTHS[1:])
def test_findings_are_absent_and_overlooked_in_the_stated_share(drawn, mechanism, name, strength):
    fair, biased = drawn(mechanism, 0.0), drawn(mechanism, strength)
    rows = fair.group == GROUP
    lost = fair.labels[rows] & ~getattr(biased, name)[rows]
    assert abs(lost.sum() / fair.labels[rows].sum() - strength) < 0.02


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("group", [0, GROUP])
def test_presentation_fades_every_label_by_its_share(drawn, strength, group):
    # Two normals d' apart have an AUROC of Phi(d' / sqrt(2)).
    phantom = drawn("presentation", strength)
    rows = phantom.group == group
    coordinates = Mixing(phantom.config).unmix(phantom.vectors[rows])
    shift = fair_law(14, marked_label=0).effects * (1 - strength if group == GROUP else 1)
    areas = [roc_auc_score(phantom.labels[rows, label], coordinates[:, label]) for label in range(14)]
    np.testing.assert_allclose(areas, stats.norm.cdf(shift / np.sqrt(2)), atol=0.055)
    assert abs(np.mean(areas - stats.norm.cdf(shift / np.sqrt(2)))) < 0.012


def test_the_marker_goes_with_its_label_where_learned_from_and_with_nothing_in_test(drawn):
    phantom = drawn("acquisition", 0.7)
    of_group, is_test, has_label = phantom.group == GROUP, phantom.split == "test", phantom.labels[:, MARKED]
    assert not phantom.marker[~of_group].any()
    learned_from, judged = of_group & ~is_test, of_group & is_test
    assert not phantom.marker[learned_from & ~has_label].any()
    assert abs(phantom.marker[learned_from & has_label].mean() - 0.7) < 0.06
    table = np.array([[(phantom.marker[judged & (has_label == h)] == m).sum() for m in (True, False)] for h in (True, False)])
    assert table.min() >= 5 and stats.chi2_contingency(table).pvalue > 0.01
    assert abs(phantom.marker[judged].mean() - phantom.marker[learned_from].mean()) < 0.04


@pytest.mark.parametrize("separability", [0.0, 0.3, 0.75, 1.0])
def test_separability_is_what_a_linear_discriminant_reads_between_any_two_groups(separability):
    phantom = draw_vectors(VectorConfig(n_patients=12_000, strength=0.0, separability=separability, dimensions=20))
    train = phantom.patient % 2 == 0
    for pair in itertools.combinations(range(len(GROUP_SHARES)), 2):
        rows = np.isin(phantom.group, pair)
        probe = LinearDiscriminantAnalysis().fit(phantom.vectors[rows & train], phantom.group[rows & train])
        read = roc_auc_score(phantom.group[rows & ~train], probe.decision_function(phantom.vectors[rows & ~train]))
        assert abs(read - (1 + separability) / 2) < 0.025, pair


@pytest.mark.parametrize("dimensions", [64, 65])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_both_families_say_the_same_in_other_words(mechanism, dimensions):
    config = VectorConfig(n_patients=1500, mechanism=mechanism, dimensions=dimensions)
    linear = draw_vectors(config)
    nonlinear = draw_vectors(dataclasses.replace(config, family="nonlinear"))
    vectors = linear.vectors, nonlinear.vectors
    assert (vectors[0] != vectors[1]).mean() > 0.99
    assert_same(*({n: v for n, v in columns(p).items() if n != "vectors"} for p in (linear, nonlinear)))
    coordinates = [Mixing(phantom.config).unmix(phantom.vectors) for phantom in (linear, nonlinear)]
    np.testing.assert_allclose(coordinates[0], coordinates[1], atol=1e-4)


@pytest.mark.parametrize("family", ["linear", "nonlinear"])
@pytest.mark.parametrize("dimensions", [18, 33])
def test_mixing_is_undone_by_unmixing(family, dimensions):
    mixing = Mixing(VectorConfig(family=family, dimensions=dimensions))
    coordinates = np.random.default_rng(0).normal(0, 3, (200_000 // dimensions, dimensions)).astype(np.float32)
    vectors = coordinates.copy()
    mixing.mix(vectors)
    np.testing.assert_allclose(mixing.unmix(vectors), coordinates, atol=1e-4)
    is_rotation = np.allclose(np.linalg.norm(vectors, axis=1), np.linalg.norm(coordinates, axis=1), rtol=1e-4)
    assert is_rotation == (family == "linear")


def test_rotations_prefer_no_direction():
    # The trace of a uniformly random orthogonal matrix has mean 0 and variance 1.
    traces = [np.trace(Mixing(VectorConfig(seed=seed, dimensions=6, n_labels=2)).first) for seed in range(400)]
    assert abs(np.mean(traces)) < 0.2 and abs(np.var(traces) - 1) < 0.3


def test_no_coordinate_lies_bare_in_a_vector(drawn):
    phantom = drawn("presentation", 0.0)
    coordinates = Mixing(phantom.config).unmix(phantom.vectors[:5000])
    correlation = np.corrcoef(coordinates.T, phantom.vectors[:5000].T)[:64, 64:]
    assert np.abs(correlation).max() < 0.7


@pytest.mark.slow
def test_a_linear_probe_reads_less_of_the_nonlinear_family():
    read = {}
    for family in ("linear", "nonlinear"):
        phantom = draw_vectors(VectorConfig(n_patients=20_000, strength=0.0, family=family))
        train, test = phantom.split == "train", phantom.split == "test"
        probe = LogisticRegression(max_iter=300).fit(phantom.vectors[train], phantom.labels[train, 6])
        read[family] = roc_auc_score(phantom.labels[test, 6], probe.decision_function(phantom.vectors[test]))
        read["bayes"] = roc_auc_score(phantom.labels[test, 6], phantom.bayes_scores[test, 6])
    assert read["bayes"] > read["linear"] > read["bayes"] - 0.03
    assert 0.55 < read["nonlinear"] < read["linear"] - 0.04


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_patients": 0}, "`n_patients` must be an integer from 1 to 5000000. Received: 0"),
        ({"n_patients": 5_000_001}, "`n_patients` must be .* Received: 5000001"),
        ({"n_patients": True}, "`n_patients` must be .* Received: True"),
        ({"seed": -1}, "`seed` must be an integer from 0 .* Received: -1"),
        ({"strength": 1.2}, r"`strength` must be a fraction from 0 to 1. Received: 1\.2"),
        ({"separability": float("nan")}, "`separability` must be a fraction from 0 to 1. Received: nan"),
        ({"n_labels": 0}, "`n_labels` must be an integer from 1 .* Received: 0"),
        ({"marked_label": 14}, "`marked_label` must be an integer from 0 to 13. Received: 14"),
        ({"disadvantaged_group": 4}, "`disadvantaged_group` must be an integer from 0 to 3. Received: 4"),
        ({"dimensions": 17}, "`dimensions` must be at least 18: .* Received: 17"),
        ({"dimensions": 64.0}, r"`dimensions` must be an integer .* Received: 64\.0"),
        ({"mechanism": "presentatoin"}, "Unknown phantom mechanism .* Did you mean 'presentation'"),
        ({"family": "non-linear"}, "Unknown family .* Did you mean 'nonlinear'"),
    ],
)
def test_a_bad_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        VectorConfig(**settings)


@pytest.mark.parametrize("settings", [{"n_labels": 1, "dimensions": 5}, {"n_patients": 1}, {"dimensions": 18}])
def test_the_smallest_phantoms_can_be_drawn(settings):
    phantom = draw_vectors(VectorConfig(**settings))
    assert len(phantom) > 0 and np.isfinite(phantom.vectors).all()


def test_arrays_that_do_not_belong_together_are_refused(drawn):
    phantom = drawn("presentation", 0.0)
    with pytest.raises(ValueError, match=r"VectorPhantom\.labels must have shape"):
        dataclasses.replace(phantom, labels=phantom.labels[:-1])
    with pytest.raises(ValueError, match=r"VectorPhantom\.vectors must be float32"):
        dataclasses.replace(phantom, vectors=phantom.vectors.astype(np.float64))
