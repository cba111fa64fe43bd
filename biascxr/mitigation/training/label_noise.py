"""`label_noise`: learns as if the wrong labels of each group, at given or estimated rates, had been right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError, unknown_name
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.training.base import Head, NetworkMethod, NetworkSettings, TrainingTask
from biascxr.mitigation.training.noise_estimate import estimate_rates
from biascxr.mitigation.training.noise_rates import NoiseRates, given_rates, read_rate

RATES = ("estimate", "given")
ASSUMED = (
    "rates of wrong labels are estimated as if those of {} were right and a vector meant the same risk in every group: a group "
    "that truly has fewer findings looks the same as one whose findings are missed; only labels of better origin can tell"
)


@dataclass(frozen=True)
class LabelNoiseSettings(NetworkSettings):
    """Settings of `label_noise`, beside those of the network.

    Attributes:
        rates: `estimate`, against the reference group, or `given`, by the next two settings.
        false_negative_rate: P(recorded 0 | true 1), as `GROUP=RATE` or `GROUP@LABEL=RATE` texts, for instance
            `[BLACK=0.3, BLACK@Edema=0.4]`; the groups of crossed attributes are named `BLACK / F`. Not named: 0.
        false_positive_rate: P(recorded 1 | true 0), likewise.
        reference: the group whose labels are taken to be right when rates are estimated; empty: the one with most rows.
        caution: an estimated rate is corrected for less so many standard errors.
        min_positive: a label of a group is corrected by estimate only where so many positives and negatives are expected in
            the group, and recorded in each half of the reference group.
    """

    rates: str = "estimate"
    false_negative_rate: tuple[str, ...] = ()
    false_positive_rate: tuple[str, ...] = ()
    reference: str = ""
    caution: float = 1.0
    min_positive: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rates not in RATES:
            raise unknown_name("rates of label_noise", self.rates, RATES)
        texts = {name: getattr(self, name) for name in ("false_negative_rate", "false_positive_rate")}
        for name, own in texts.items():
            for text in own:
                read_rate(f"label_noise.{name}", text)
        if (self.rates == "given") != any(texts.values()):
            expected = "rates=given needs false_negative_rate or false_positive_rate, rates=estimate takes neither"
            raise InputError(f"{expected}; got rates={self.rates} and {texts}.")
        if not self.caution >= 0 or self.min_positive < 1:
            raise InputError(f"caution must be at least 0, min_positive at least 1; got {self.caution}, {self.min_positive}.")


class LabelNoise(NetworkMethod):
    """Corrects the loss for labels that are wrong more often in some groups than in others.

    Minimises the surrogate loss `[(1 - r_other) l(t, y) - r_y l(t, not y)] / (1 - a - b)` with `a = r_1 = P(recorded 0 | true
    1)`, `b = r_0 = P(recorded 1 | true 0)` of the row's group and label. Its mean over the noise is the loss on the true
    labels (Natarajan et al., Learning with noisy labels, NeurIPS 2013, lemma 1), if the rates are right and, within a group
    and true label, errors do not depend on the image. Early stopping looks at the same loss on validation labels.

    **The rates cannot be learned from recorded labels without an assumption.** A group whose findings are missed and a group
    that has fewer of them give the same data. What `rates=estimate` assumes: the reference group's labels are right, *and* a
    vector means the same risk in every group. A group that truly has a lower risk at the same vector is then read as
    underdiagnosed, and its scores are raised by mistake. Only labels of better origin can tell: use them, and `rates=given`.

    The estimate (`noise_estimate.py`): a logistic regression learns from one half of the reference group's patients and is
    calibrated on the other half (Platt); in each other group the two rates are taken that make its recorded labels most likely
    given those scores (`P(recorded) = (1 - a) c + b (1 - c)`, c the calibrated score). Then the halves change places, and the
    mean of both is lowered by `caution` standard errors. Where scores are less sure in a group than in the reference group (few
    rows, vectors that look different), that is still read as wrong labels. This stands for the anchor points of Patrini et al.
    (CVPR 2017) and the confident learning of Northcutt et al. (JAIR 2021) that the authors' code uses: both need rows that are
    sure to be positive, and take overlap of the classes for noise.

    A row of unknown group keeps its labels; masked labels stay masked. Groups are those of `attributes`, several crossed.
    Estimated, with fewer than two groups, and with no rate above 0, it is `erm`. A sampler that draws by recorded label
    changes what the rates mean; do not put one before it.

    Follows Wang, Liu and Levy, Fair classification with group-dependent label noise, FAccT 2021 (surrogate loss; their
    group-weighted peer loss and fairness constraints are not here). Differs: rates by label; the estimate; multi-label.

    When it helps, when it harms: a group is under- or over-labelled at rates that are known or well estimated. The loss has no
    lower bound and more variance (by about `1 / (1 - a - b)^2`): with few rows it over-fits. Wrong rates bias it, in the
    direction that they are wrong.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.58), annotation (+0.64) and selection (+0.64); unclear under presentation and acquisition.
    """

    name: ClassVar[str] = "label_noise"
    Settings: ClassVar[type] = LabelNoiseSettings

    def _fit(self, task: TrainingTask) -> Head:
        self._label_names = task.train.label_names
        self._rates, self._said = self._find_rates(task.train, self._cells(task.train), task.seed)
        return super()._fit(task)

    def _find_rates(self, train: SplitData, cells: Cells, seed: int) -> tuple[NoiseRates, tuple[str, ...]]:
        """Returns the rates and how they came about."""
        chosen, nothing = self.settings, NoiseRates.zero(len(cells), train.labels.shape[1])
        if chosen.rates == "given" and len(cells):
            rates = given_rates(chosen.false_negative_rate, chosen.false_positive_rate, cells, train.label_names)
            return rates, ("rates of wrong labels as given",)
        if len(cells) < 2:
            return nothing, ("fewer than two groups are known",)
        if chosen.reference and chosen.reference not in cells.names:
            raise unknown_name("group in label_noise.reference", chosen.reference, cells.names)
        codes = cells.codes(train.attributes)
        largest = int(np.bincount(codes[codes >= 0]).argmax())
        reference = cells.names.index(chosen.reference) if chosen.reference else largest
        rates = estimate_rates(
            train.take(codes == reference),
            train.take((codes >= 0) & (codes != reference)),
            cells,
            reference_group=cells.names[reference],
            caution=chosen.caution,
            min_positive=chosen.min_positive,
            seed=seed,
        )
        return rates, (ASSUMED.format(cells.names[reference]),)

    def _trainer(self, head: object, train: SplitData, weights: np.ndarray, cells: Cells) -> object:
        from biascxr.models.label_noise import NoiseCorrectedTrainer

        if not self._rates.any:
            return super()._trainer(head, train, weights, cells)
        return NoiseCorrectedTrainer(head, self._rates.false_negative, self._rates.false_positive)

    def _criterion(self, trainer: object) -> object:
        from biascxr.models import CRITERIA

        plain = super()._criterion(trainer)
        return trainer.corrected_criterion(CRITERIA[plain]) if self._rates.any else plain

    def _notes(self, cells: Cells) -> tuple[str, ...]:
        if not self._rates.any:
            return (*self._said, "no label is corrected: trained as erm")
        return (*self._said, *self._rates.describe(cells, self._label_names))
