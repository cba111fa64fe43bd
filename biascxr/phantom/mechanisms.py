"""Mechanisms: how a data set comes to treat one group worse. One list, used for films, vectors and real rows alike.

A mechanism says, for a strength, what happens to the disadvantaged group (`Effect`). Who carries an effect out knows no
mechanism by name: `population.py` does it to made-up films, `vectors.py` to made-up vectors, `plant.py` to real rows.

References: Jones et al., A causal perspective on dataset bias in machine learning for medical imaging (Nature Machine
Intelligence 2024): prevalence, presentation, annotation. Castro, Walker and Glocker, Causality matters in medical imaging
(Nature Communications 2020): acquisition, selection. Larrazabal et al., Gender imbalance in medical imaging datasets (PNAS
2020): under-representation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Effect:
    """What happens to the films of the disadvantaged group; every field is a chance or share in [0, 1], 0 is nothing.

    Args:
        absent: chance that a true finding is not there at all: the film and the truth lose it.
        fade: share of a finding's effect on the film that is lost; the truth keeps it.
        overlooked: chance that a finding that is there is recorded as absent.
        marked: chance that a film with the marked finding carries a marker, outside the test split. In the test split the
            marker is as frequent and has nothing to do with the finding: who leaned on it, falls.
        sick_left_out: chance, for each disease on it, that a film does not enter the splits that are learned from (all but
            test): with k diseases it enters with chance (1 - sick_left_out)^k.
        left_out: chance that a patient does not enter the splits that are learned from.
    """

    absent: float = 0.0
    fade: float = 0.0
    overlooked: float = 0.0
    marked: float = 0.0
    sick_left_out: float = 0.0
    left_out: float = 0.0


@dataclasses.dataclass(frozen=True)
class Mechanism:
    """A way in which bias comes into data.

    Args:
        effect: strength in [0, 1] -> `Effect`; at 0 nothing happens.
        changes: what it changes between the groups, in the notation of the references (X film, Y finding, A group).
        sentence: what it does, for people.
        shows: metric in which it shows on true labels, and the sign of the group's difference from everyone else; None where it
            alone makes no gap.
    """

    effect: Callable[[float], Effect]
    changes: str
    sentence: str
    shows: tuple[str, int] | None


MECHANISMS: dict[str, Mechanism] = {
    "prevalence": Mechanism(
        lambda strength: Effect(absent=strength),
        "P(Y|A)",
        "the group has fewer of the findings",
        ("TPR", -1),
    ),
    "presentation": Mechanism(
        lambda strength: Effect(fade=strength),
        "P(X|Y,A)",
        "the group's findings look fainter",
        ("AUROC", -1),
    ),
    "annotation": Mechanism(
        lambda strength: Effect(overlooked=strength),
        "P(recorded Y|Y,A)",
        "a share of the group's findings is recorded as absent: underdiagnosis",
        ("TPR", -1),
    ),
    "acquisition": Mechanism(
        lambda strength: Effect(marked=strength),
        "P(X|Y,A) of what is learned from",
        "a marker goes with a finding on the group's films that are learned from, not on those that are judged: a shortcut",
        ("AUROC", -1),
    ),
    "selection": Mechanism(
        lambda strength: Effect(sick_left_out=strength),
        "P(in the data|Y,A)",
        "the group's sick enter the data that are learned from less often",
        ("TPR", -1),
    ),
    # Apart from the others: it alone leaves P(Y|X,A) as it is, there is only less to learn from.
    "under_representation": Mechanism(
        lambda strength: Effect(left_out=strength),
        "P(A)",
        "the group has fewer patients in the data that are learned from",
        None,
    ),
}
