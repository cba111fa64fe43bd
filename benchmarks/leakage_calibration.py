"""Do the leakage stage's p-values and intervals hold what they promise? Measured in made-up worlds whose truth is known.

    python benchmarks/leakage_calibration.py                  # 1,000 worlds of each setting, minutes on one core
    python benchmarks/leakage_calibration.py --quick          # 200 worlds
    python benchmarks/leakage_calibration.py --part size      # some parts: size, coverage, folds, power

size      nothing can be read: how often does the shuffle test reject at 5%? Probes are fitted, as in a run.
coverage  two normal groups d apart with a known linear score have AUROC = Phi(d / sqrt 2): how often is it in the interval?
folds     probes fitted over folds: how often is the mean of their own true AUROCs in the interval?
power     how often is a planted d found, against the closed form: AUROC normal with the variance of its pairs?

A patient has 1 to 6 images, whose vectors share an effect of the patient. Each line gives a figure in percent of worlds, its
Monte Carlo error (one standard error), the target beside it, and whether it is met. Lines without a target show what fails.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from calibration_figures import LEVEL, Figure, print_figures
from scipy import special, stats

from biascxr.containers import Attribute
from biascxr.leakage.logistic import Logistic
from biascxr.leakage.readout import Fold, Readout, read_out
from biascxr.leakage.scores import one_vs_rest
from biascxr.leakage.shuffles import refitted, shuffle_test

N_PERMUTATIONS = 99
ICC = 0.5  # share of a score's variance that is the patient's
# Shares of patients with 1, 2, ... 6 images.
FEW, SOME, MANY = (0.70, 0.15, 0.10, 0.05, 0.0, 0.0), (0.45, 0.20, 0.15, 0.10, 0.05, 0.05), (0.0, 0.0, 0.1, 0.2, 0.3, 0.4)
SHARES = (0.66, 0.16, 0.10, 0.08)
SIZE, COVERAGE, POWER = (0.04, 0.065), (0.925, 0.975), 0.03
# The closed form knows the variance; the studentised test must estimate it, which costs something in groups of few patients.
FEW_PATIENTS, POWER_OF_FEW = 25, 0.06


class _OneSetting(Logistic):
    """The logistic probe without a choice of its penalty, five times as fast: the choice sees no group that is judged."""

    grid = (0.1,)


def patients_of(sizes: tuple[int, ...], images: tuple[tuple[float, ...], ...], rng: np.random.Generator) -> tuple:
    """Returns `[m]` the patient and `[m]` the group of each image; `sizes` patients per group, images by its shares."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    counts = 1 + (rng.random(len(group))[:, None] > np.cumsum(images, axis=1)[group, :-1]).sum(axis=1)
    patient = np.repeat(np.arange(len(group)), counts)
    return patient, group[patient]


def clustered_normal(patient: np.ndarray, n_columns: int, rng: np.random.Generator) -> np.ndarray:
    """Returns `[m, c]` standard normal columns, ICC of them the patient's."""
    own = rng.normal(size=(patient.max() + 1, n_columns))[patient]
    return np.sqrt(ICC) * own + np.sqrt(1 - ICC) * rng.normal(size=(len(patient), n_columns))


def as_readout(patient: np.ndarray, codes: np.ndarray, scores: np.ndarray) -> Readout:
    """Returns a readout of given scores, one fold."""
    attribute = Attribute("race", tuple("ABCDE"[: scores.shape[1]]), True)
    zero = np.zeros(len(codes), np.int64)
    return Readout(attribute, "known", np.arange(len(codes)), codes, scores, zero, patient, "", float("nan"))


# ------------------------------------------------------------------------------------------------------------------ size


def _refitted(to_read: tuple, readout: Readout, *, seed: int) -> float:
    rows = refitted(lambda rng: read_out(*to_read, shuffled=rng, seed=seed), n_shuffles=19, seed=seed, observed=readout)
    return rows[-1]["p_value"]


def _to_read(sizes, images, n_folds: int, changes: bool, seed: int) -> tuple:
    rng = np.random.default_rng(seed)
    patient, codes = patients_of(sizes, images, rng)
    if changes:  # as view does: half of what decides is the patient's
        codes = (clustered_normal(patient, 1, rng)[:, 0] > 0.4).astype(np.int64)
    vectors = clustered_normal(patient, 6, rng).astype(np.float32)
    n_patients = patient.max() + 1
    place = rng.permutation(n_patients)[patient]
    if n_folds == 1:
        share = place / n_patients
        parts = [np.flatnonzero(own) for own in (share < 0.5, (share >= 0.5) & (share < 0.6), share >= 0.6)]
        folds = (Fold(*parts),)
    else:
        fold, nothing = place % n_folds, np.zeros(0, np.int64)
        folds = tuple(Fold(np.flatnonzero(fold != f), nothing, np.flatnonzero(fold == f)) for f in range(n_folds))
    attribute = Attribute("race", tuple("ABCDE"[: len(sizes)]), not changes)
    return _OneSetting(), vectors, attribute, codes, patient, folds


def size_figures(n_worlds: int, seed: int) -> Iterator[Figure]:
    """The shuffle test where nothing can be read."""
    n = np.array(SHARES) * 600
    four, small, two = tuple(n.astype(int)), tuple((n / 4).astype(int)), (150, 150)
    settings = {
        "4 groups, 600 patients": (four, (SOME,) * 4, 1, False),
        "4 groups, 150 patients": (small, (SOME,) * 4, 1, False),
        "4 groups, 150 patients, small groups have few images": (small, (MANY, FEW, FEW, FEW), 1, False),
        "4 groups, 150 patients, small groups have many images": (small, (FEW, MANY, MANY, MANY), 1, False),
        "2 groups that change within patients, 300 patients": (two, (SOME,) * 2, 1, True),
        "2 groups, 150 patients, 5 folds": ((75, 75), (SOME,) * 2, 5, False),
        "4 groups, 150 patients, 5 folds": (small, (SOME,) * 4, 5, False),
    }
    for at, (name, setting) in enumerate(settings.items()):
        p_values: dict[str, list] = {"macro": [], "last group": [], "unstudentised": [], "refitted": []}
        for world in range(n_worlds):
            to_read = _to_read(*setting, seed=seed + 100_000 * at + world)
            readout = read_out(*to_read, seed=world)
            tested = partial(shuffle_test, readout, n_permutations=N_PERMUTATIONS, seed=world, over_folds=True)
            studentised = tested()
            p_values["macro"].append(studentised["macro"])
            p_values["last group"].append(studentised[readout.attribute.groups[-1]])
            if at in (2, 3):
                p_values["unstudentised"].append(tested(is_studentised=False)["macro"])
            if "folds" in name and world < max(1, n_worlds // 5):  # 19 readings each
                p_values["refitted"].append(_refitted(to_read, readout, seed=world))
        for what, found in p_values.items():
            if found:
                target = SIZE if what == ("refitted" if "folds" in name else "macro") else None
                defined = np.array(found)[~np.isnan(found)]
                yield Figure("size", name, what, defined <= LEVEL + 1e-12, target)


# -------------------------------------------------------------------------------------------------------------- coverage


def distance(auroc: float) -> float:
    """Returns the d of an AUROC."""
    return float(np.sqrt(2) * stats.norm.ppf(auroc))


def coverage_figures(n_worlds: int, seed: int) -> Iterator[Figure]:
    """Intervals of a group and of the mean; each score column is d higher in its own group, so all AUROCs are the same."""
    sizes = {"12 to 60 patients a group": (60, 24, 16, 12), "40 to 200 patients a group": (200, 80, 50, 40)}
    for at, (name, n) in enumerate(sizes.items()):
        for auroc in (0.5, 0.7, 0.9):
            for stratified in (False, True):
                covered: dict[str, list] = {"smallest group": [], "macro": []}
                for world in range(n_worlds):
                    rng = np.random.default_rng([seed, at, int(100 * auroc), stratified, world])
                    patient, codes = patients_of(n, (FEW, SOME, MANY, SOME), rng)
                    scores = clustered_normal(patient, 4, rng) + distance(auroc) * np.eye(4)[codes]
                    strata = None
                    if stratified:  # which rows are in which depends on the group, and moves all scores
                        strata = (rng.random(len(codes)) < 0.2 + 0.2 * codes).astype(np.int64)
                        scores = scores + 2.0 * strata[:, None] * [1, -1, 1, -1]
                    rows = one_vs_rest(as_readout(patient, codes, scores), confidence=0.95, strata=strata)
                    for row, what in ((rows[3], "smallest group"), (rows[4], "macro")):
                        covered[what].append(row["low"] <= auroc <= row["high"])
                label = f"AUROC {auroc:.1f}, {name}{', within strata' if stratified else ''}"
                for what, hits in covered.items():
                    yield Figure("coverage", label, what, np.array(hits), COVERAGE)


def true_auroc(readout: Readout, vectors: np.ndarray, d: float) -> float:
    """Returns the AUROC of the folds' probes on new patients, counted as the readout counts its folds: by their pairs.

    A linear probe w of columns with unit variance whose first is d higher in group B: `Phi(d w_1 / (sqrt 2 |w|))`. w is
    had back from the logits of the scores, which are linear in the vectors.
    """
    values, pairs = [], []
    for fold in np.unique(readout.fold):
        own = readout.fold == fold
        x = vectors[readout.rows[own]].astype(np.float64)
        logit = special.logit(np.clip(readout.scores[own, 1].astype(np.float64), 1e-12, 1 - 1e-12))
        w = np.linalg.lstsq(np.c_[x, np.ones(len(x))], logit, rcond=None)[0][:-1]
        values.append(stats.norm.cdf(d * w[0] / (np.sqrt(2) * np.linalg.norm(w))))
        pairs.append(readout.codes[own].sum() * (readout.codes[own] == 0).sum())
    return float(np.average(values, weights=pairs))


def fold_figures(n_worlds: int, seed: int) -> Iterator[Figure]:
    """Intervals over folds. The truth is that of the probes that were fitted, which is below the best probe's."""
    for at, n_patients in enumerate((150, 600)):
        for auroc in (0.5, 0.7, 0.9):
            covered, d = [], distance(auroc)
            for world in range(n_worlds):
                to_read = _to_read((n_patients // 2,) * 2, (SOME,) * 2, 5, False, seed + 10_000_000 * (at + 1) + world)
                probe, vectors, attribute, codes, patient, folds = to_read
                vectors[:, 0] += d * codes
                readout = read_out(probe, vectors, attribute, codes, patient, folds, seed=world)
                row = one_vs_rest(readout, confidence=0.95)[-1]
                covered.append(row["low"] <= true_auroc(readout, vectors, d) <= row["high"])
            yield Figure(
                "folds", f"AUROC {auroc:.1f}, 2 groups, {n_patients} patients, 5 folds", "macro", np.array(covered), COVERAGE
            )


# ----------------------------------------------------------------------------------------------------------------- power


def pair_covariance(d: float, correlation: float) -> float:
    """Covariance of two pairs' wins when their differences correlate so: `Phi2(d/sqrt 2, d/sqrt 2; correlation) - AUROC^2`."""
    x = d / np.sqrt(2)
    if correlation >= 1:
        return float(stats.norm.cdf(x) * (1 - stats.norm.cdf(x)))
    if correlation <= 0:
        return 0.0
    both = stats.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]]).cdf([x, x])
    return float(both - stats.norm.cdf(x) ** 2)


def closed_variance(patient: np.ndarray, codes: np.ndarray, d: float) -> float:
    """Variance of the AUROC of two binormal groups, given each patient's number of images: a sum over pairs of pairs.

    Two pairs' differences correlate by (a + b) / 2, a and b the correlation of their two positives and of their two
    negatives: 1 for the same image, ICC for the same patient, 0 else.
    """
    kinds = []
    for group in (1, 0):
        own = np.bincount(patient[codes == group])
        n, same_patient = own.sum(), (own.astype(float) ** 2).sum()
        kinds.append({1.0: n, ICC: same_patient - n, 0.0: n**2 - same_patient})
    total = sum(c1 * c0 * covariance_at(d, (a + b) / 2) for a, c1 in kinds[0].items() for b, c0 in kinds[1].items())
    return float(total / (kinds[0][1.0] * kinds[1][1.0]) ** 2)


_KNOWN: dict[tuple[float, float], float] = {}


def covariance_at(d: float, correlation: float) -> float:
    """Returns `pair_covariance`, computed once."""
    if (d, correlation) not in _KNOWN:
        _KNOWN[d, correlation] = pair_covariance(d, correlation)
    return _KNOWN[d, correlation]


def power_figures(n_worlds: int, seed: int) -> Iterator[Figure]:
    """The shuffle test where d is planted, and the closed form at the same images per patient."""
    z = stats.norm.ppf(1 - LEVEL)
    settings = (
        ("AUROC .60, 60 and 140 patients", (140, 60), (SOME, SOME), 0.60),
        ("AUROC .56, 100 and 300 patients", (300, 100), (SOME, SOME), 0.56),
        ("AUROC .65, 40 and 40 patients", (40, 40), (SOME, MANY), 0.65),
        ("AUROC .70, 20 and 200 patients", (200, 20), (SOME, SOME), 0.70),
        ("AUROC .70, 10 and 100 patients", (100, 10), (SOME, SOME), 0.70),
    )
    for at, (name, sizes, images, auroc) in enumerate(settings):
        d, found, plain, expected = distance(auroc), [], [], []
        for world in range(n_worlds):
            rng = np.random.default_rng([seed, at, world])
            patient, codes = patients_of(sizes, images, rng)
            score = clustered_normal(patient, 1, rng)[:, 0] + d * codes
            readout = as_readout(patient, codes, np.c_[-score, score])
            found.append(shuffle_test(readout, n_permutations=N_PERMUTATIONS, seed=world)["macro"] <= LEVEL + 1e-12)
            p = shuffle_test(readout, n_permutations=N_PERMUTATIONS, seed=world, is_studentised=False)["macro"]
            plain.append(p <= LEVEL + 1e-12)
            null, planted = (np.sqrt(closed_variance(patient, codes, at_d)) for at_d in (0.0, d))
            expected.append(stats.norm.cdf((auroc - 0.5 - z * null) / planted))
        form = float(np.mean(expected))
        below = POWER_OF_FEW if min(sizes) < FEW_PATIENTS else POWER
        yield Figure("power", name, "studentised", np.array(found), (form - below, form + POWER))
        yield Figure("power", name, "unstudentised", np.array(plain), (form - POWER, form + POWER))


PARTS: dict[str, Callable[[int, int], Iterator[Figure]]] = {
    "size": size_figures, "coverage": coverage_figures, "folds": fold_figures, "power": power_figures,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts and prints the table. Returns 1 if a figure falls short."""
    return print_figures("leakage calibration", __doc__, PARTS, arguments, note=f"{N_PERMUTATIONS} permutations")


if __name__ == "__main__":
    sys.exit(main())
