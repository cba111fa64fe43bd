"""Do the tests of dependence err as seldom as they promise, and find what is planted? Made-up worlds whose truth is known.

    python benchmarks/dependence_calibration.py                  # 1,000 worlds of each setting
    python benchmarks/dependence_calibration.py --quick          # 200 worlds
    python benchmarks/dependence_calibration.py --part power     # some parts: size, power, frozen

size    the score depends on the group through the label alone (and through age, where age is held fixed), and prevalence
        differs: how often is the smallest adjusted p-value of `given_label` at most 5%, and do all its intervals hold one half?
power   a shift of the score within a label value: how often is it found? With one finding, and with 14.
frozen  the planted head reads a finding's coordinate alone: how often does erasing the attribute below it, which vectors hold,
        change logits more than random subspaces do? And how often where it is used?

A patient has 1 to 4 images, alike in score and mostly in label; groups have 50, 30 and 20% of the patients.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
from calibration_figures import LEVEL, Figure, print_figures
from scipy import special

from biascxr.containers import Attribute
from biascxr.leakage.dependence import HiddenRows, ScoredRows, frozen_head, given_label
from biascxr.phantom.leakage_cases import draw_case

N_PERMUTATIONS, N_RANDOM = 199, 200
RACE, SEX = Attribute("race", ("A", "B", "C"), True), Attribute("sex", ("F", "M"), True)
SHARES = (0.5, 0.3, 0.2)
SIZE, COVERAGE = (0.04, 0.065), (0.925, 0.975)
FROZEN_SIZE = (0.0, 0.05)  # the attribute's directions are none of the head's: the test rejects less often than it may


def world(
    seed: list[int], *, n_patients: int, n_labels: int = 3, prevalence: float = 0.3, in_label: float = 0.0, by_age: float = 0.0
) -> ScoredRows:
    """Draws scores, labels and groups.

    Args:
        seed: of the world.
        n_patients: patients.
        n_labels: findings.
        prevalence: of group B; A has two thirds of it and C five thirds.
        in_label: shift of group C's logit at either label value.
        by_age: shift of the logit with a binary age, which goes with the group.
    """
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 5, n_patients))
    group = rng.choice(3, n_patients, p=SHARES)
    age = (rng.random(n_patients) < np.array([0.2, 0.5, 0.8])[group]).astype(int)
    ill = rng.random((n_patients, n_labels)) < (prevalence * np.array([2 / 3, 1, 5 / 3]))[group][:, None]
    label = (ill[patient] ^ (rng.random((len(patient), n_labels)) < 0.1 * prevalence / 0.3)).astype(np.float32)
    # The findings' scores of a patient go together, as those of one network do.
    own = np.sqrt(0.5) * (rng.normal(size=(n_patients, 1)) + rng.normal(size=(n_patients, n_labels)))[patient]
    logit = 1.5 * label + own + rng.normal(size=label.shape) + by_age * age[patient, None]
    logit += in_label * (group[patient] == 2)[:, None]
    label[rng.random(label.shape) < 0.05] = np.nan
    names = tuple(f"finding {j + 1}" for j in range(n_labels))
    return ScoredRows(special.expit(logit), label, group[patient], patient, names, RACE, {"age": age[patient]})


def size_figures(n_worlds: int, seed: int) -> Iterator[Figure]:
    """The given-label test where the score depends on the group through the label alone."""
    settings = {
        "3 findings, 200 patients": ({"n_patients": 200}, ()),
        "3 findings, 800 patients": ({"n_patients": 800}, ()),
        "14 findings, 400 patients": ({"n_patients": 400, "n_labels": 14}, ()),
        "14 rare findings (10%), 400 patients": ({"n_patients": 400, "n_labels": 14, "prevalence": 0.1}, ()),
        "3 findings, 400 patients, age acts and is held fixed": ({"n_patients": 400, "by_age": 1.5}, ("age",)),
        "3 findings, 400 patients, age acts and is not held": ({"n_patients": 400, "by_age": 1.5}, None),
    }
    for at, (name, (drawn, given)) in enumerate(settings.items()):
        rejected, held = [], []
        for number in range(n_worlds):
            rows = world([seed, at, number], **drawn)
            table = given_label(rows, given=given or (), n_permutations=N_PERMUTATIONS, seed=number)
            own = table[table["p_value"].notna()]
            rejected.append(own["p_value"].min() <= LEVEL + 1e-12)
            held.append(((own["low"] <= 0.5) & (own["high"] >= 0.5)).all())
        yield Figure("size", name, "any p <= 5%", np.array(rejected), None if given is None else SIZE)
        yield Figure("size", name, "all intervals", np.array(held), None if given is None else COVERAGE)


def power_figures(n_worlds: int, seed: int) -> Iterator[Figure]:
    """The given-label test where group C is ranked higher than others of its label."""
    for at, shift in enumerate((0.4, 0.7)):
        for n_labels in (1, 14):
            found = []
            for number in range(max(1, n_worlds // 2)):
                rows = world([seed, 100 + at, number], n_patients=400, n_labels=n_labels, in_label=shift)
                table = given_label(rows, n_permutations=N_PERMUTATIONS, seed=number)
                found.append(table["p_value"].min() <= LEVEL + 1e-12)
            name = f"C shifted by {shift / np.sqrt(2):.2f} deviations, {n_labels} finding{'s' if n_labels > 1 else ''}"
            yield Figure("power", name, "any p <= 5%", np.array(found), None)


def frozen_figures(n_worlds: int, seed: int) -> Iterator[Figure]:
    """The erasure below a planted head, 300 test patients."""
    for name, target in (("encoded_unused", FROZEN_SIZE), ("unequal_prevalence", FROZEN_SIZE), ("encoded_used", None)):
        found = []
        for number in range(max(1, n_worlds // 5)):
            case = draw_case(name, n_patients=750, seed=seed + number)
            train, test = case.rows("train"), case.rows("test")
            labels = tuple("abc")
            rows = ScoredRows(case.scores[test], case.labels[test], case.codes[test], case.patient_id[test], labels, SEX)
            hidden = HiddenRows(
                case.hidden[train], case.labels[train], case.codes[train], case.hidden[test], case.kernel, case.bias
            )
            table = frozen_head(hidden, rows, n_random=N_RANDOM, seed=number)
            macro = table[(table["label"] == "macro") & (table["measure"] == "rms_logit_change")].iloc[0]
            found.append(macro["p_value"] <= LEVEL + 1e-12)
        yield Figure("frozen", f"{name}, 750 patients", "p <= 5%", np.array(found), target)


PARTS: dict[str, Callable[[int, int], Iterator[Figure]]] = {
    "size": size_figures, "power": power_figures, "frozen": frozen_figures,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts and prints the table. Returns 1 if a figure falls short."""
    note = f"{N_PERMUTATIONS} permutations, {N_RANDOM} random subspaces"
    return print_figures("dependence calibration", __doc__, PARTS, arguments, note=note)


if __name__ == "__main__":
    sys.exit(main())
