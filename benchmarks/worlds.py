"""Simulated worlds whose truth is known: what the audit is measured against.

A patient has 1 to 6 images. Labels and scores carry an effect of the patient, so his images resemble each other. Groups
differ in size, prevalence, number of images and in how far the scores of their positives are spread; whether they differ in
TPR, FPR or AUROC is a setting. Scores are latent normal, so these three have closed forms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from scipy import special, stats

from biascxr.containers import Attribute, Predictions

# Shares of patients with 1, 2, ... 6 images; means 1.5, 2.25 and 3.5.
FEW, SOME, MANY = (0.70, 0.15, 0.10, 0.05, 0.0, 0.0), (0.45, 0.20, 0.15, 0.10, 0.05, 0.05), (0.15, 0.15, 0.20, 0.20, 0.15, 0.15)
# Of the logit of the score per unit of latent score: near what a calibrated model would have.
SLOPE = 1.4


@dataclass(frozen=True)
class Label:
    """One finding, and how a model scores it in each of the k groups.

    Attributes:
        name: of the finding.
        prevalence: `[k]`, share of images labelled positive.
        tpr: `[k]`, at the threshold.
        fpr: `[k]`, likewise.
        spread: `[k]`, standard deviation of the positives' latent scores; that of the negatives is 1.
    """

    name: str
    prevalence: tuple[float, ...]
    tpr: tuple[float, ...]
    fpr: tuple[float, ...]
    spread: tuple[float, ...]

    @property
    def positive_mean(self) -> np.ndarray:
        """Latent mean of positives above the threshold, `[k]`."""
        return np.array(self.spread) * special.ndtri(self.tpr)

    @property
    def negative_mean(self) -> np.ndarray:
        """Latent mean of negatives above the threshold, `[k]`."""
        return special.ndtri(self.fpr)

    @property
    def auroc(self) -> np.ndarray:
        """True AUROC of each group, `[k]`."""
        return special.ndtr((self.positive_mean - self.negative_mean) / np.sqrt(1 + np.array(self.spread) ** 2))

    def truth(self, metric: str) -> np.ndarray:
        """Returns `[k]`, the AUROC, TPR or FPR of each group in closed form."""
        return {"AUROC": self.auroc, "TPR": np.array(self.tpr), "FPR": np.array(self.fpr)}[metric]


def label_of_auroc(name: str, prevalence, auroc, fpr, spread) -> Label:
    """A finding whose AUROC is given for each group in place of its TPR."""
    means = special.ndtri(fpr) + special.ndtri(auroc) * np.sqrt(1 + np.array(spread) ** 2)
    return Label(name, prevalence, tuple(special.ndtr(means / np.array(spread))), fpr, spread)


@dataclass(frozen=True)
class World:
    """A population of patients in k groups of one attribute, and one or two models.

    Attributes:
        shares: `[k]`, of patients.
        images: `[k]`, each the shares of patients with 1 to 6 images.
        labels: the findings under the first model.
        after: the same findings under the second model; empty: there is one model.
        n_patients: patients drawn.
        label_icc: share of the latent label's variance that is the patient's.
        score_icc: share of the latent score's variance that is the patient's.
        shared_noise: share of the images' own noise that both models have in common.
    """

    shares: tuple[float, ...]
    images: tuple[tuple[float, ...], ...]
    labels: tuple[Label, ...]
    after: tuple[Label, ...] = ()
    n_patients: int = 1000
    label_icc: float = 0.6
    score_icc: float = 0.5
    shared_noise: float = 0.6

    @property
    def attribute(self) -> Attribute:
        """The attribute, constant within patients; its groups are a, b, c, ..."""
        return Attribute("group", tuple("abcdefgh"[: len(self.shares)]), True)

    def positive_patients(self) -> np.ndarray:
        """Returns `[L, k]`, the expected number of patients with a positive image."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        weights = weights / weights.sum()
        found = np.zeros((len(self.labels), len(self.shares)))
        for index, label in enumerate(self.labels):
            for g, share in enumerate(self.shares):
                effect = special.ndtri(label.prevalence[g]) + np.sqrt(self.label_icc) * nodes
                positive = special.ndtr(effect / np.sqrt(1 - self.label_icc))
                none = sum(p * (weights * (1 - positive) ** (m + 1)).sum() for m, p in enumerate(self.images[g]))
                found[index, g] = self.n_patients * share * (1 - none)
        return found

    def positive_images(self) -> np.ndarray:
        """Returns `[L, k]`, the expected number of positive images."""
        counts = np.array([np.dot(p, np.arange(1, 7)) for p in self.images]) * np.array(self.shares) * self.n_patients
        return np.array([counts * np.array(label.prevalence) for label in self.labels])

    def sized(self, *, positive_patients: float) -> World:
        """Returns the world with so many patients that the smallest group is expected to have this many positive ones."""
        smallest = self.positive_patients().min()
        return replace(self, n_patients=round(self.n_patients * positive_patients / smallest))


def draw(world: World, rng: np.random.Generator) -> tuple[Predictions, ...]:
    """Draws patients and returns what each model says about their images."""
    group = rng.choice(len(world.shares), world.n_patients, p=world.shares)
    return _predictions(world, group, rng)


def draw_large(world: World, rng: np.random.Generator, *, positive_patients: int) -> tuple[Predictions, np.ndarray]:
    """Draws about this many positive patients in every group, for the truth.

    Returns:
        Predictions of the first model, and `[n]` the weights that give each group its share of the population again.
    """
    expected = world.positive_patients().min(axis=0) / (np.array(world.shares) * world.n_patients)  # per patient
    counts = np.ceil(positive_patients / expected).astype(int)
    group = np.repeat(np.arange(len(counts)), counts)
    predictions = _predictions(replace(world, after=()), group, rng)[0]
    weight = np.array(world.shares) / counts
    codes = pd.Categorical(predictions.table["group"], categories=list(world.attribute.groups)).codes
    return predictions, weight[codes] / weight.max()


def _predictions(world: World, group: np.ndarray, rng: np.random.Generator) -> tuple[Predictions, ...]:
    n_images = np.ones(len(group), int)
    for g, shares in enumerate(world.images):
        own = group == g
        n_images[own] = rng.choice(np.arange(1, 7), int(own.sum()), p=shares)
    patient = np.repeat(np.arange(len(group)), n_images)
    code, n, n_labels = group[patient], len(patient), len(world.labels)
    in_label, in_score = (_patient_effects(rng, len(group), n_labels) for _ in range(2))
    y = np.empty((n, n_labels), np.float32)
    models = [world.labels] + ([world.after] if world.after else [])
    latent = np.empty((len(models), n, n_labels))
    for index, label in enumerate(world.labels):
        own = np.sqrt(world.label_icc) * in_label[patient, index] + np.sqrt(1 - world.label_icc) * rng.standard_normal(n)
        y[:, index] = special.ndtri(label.prevalence)[code] + own > 0
        shared = rng.standard_normal(n)
        for at, model in enumerate(models):
            noise = shared
            if len(models) > 1:
                fresh = rng.standard_normal(n)
                noise = np.sqrt(world.shared_noise) * shared + np.sqrt(1 - world.shared_noise) * fresh
            noise = np.sqrt(world.score_icc) * in_score[patient, index] + np.sqrt(1 - world.score_icc) * noise
            scored = model[index]
            positive = scored.positive_mean[code] + np.array(scored.spread)[code] * noise
            latent[at, :, index] = np.where(y[:, index] == 1, positive, scored.negative_mean[code] + noise)
    table = pd.DataFrame({"image_id": np.arange(n), "patient_id": patient, "group": np.array(world.attribute.groups)[code]})
    names = tuple(label.name for label in world.labels)
    base = special.logit([np.dot(world.shares, label.prevalence) for label in world.labels])
    return tuple(_as_predictions(table, y, s, base, names, (world.attribute,)) for s in latent)


def _patient_effects(rng: np.random.Generator, n_patients: int, n_labels: int) -> np.ndarray:
    """Returns `[P, L]`, standard normal, correlated by one half between findings."""
    own = rng.standard_normal((n_patients, n_labels))
    return own if n_labels == 1 else np.sqrt(0.5) * (own + rng.standard_normal((n_patients, 1)))


def _as_predictions(table, y, latent, base, names, attributes) -> Predictions:
    return Predictions(
        table, y, special.expit(base + SLOPE * latent), names, attributes, (latent >= 0).astype(np.float32)
    )  # fmt: skip


@dataclass(frozen=True)
class Family:
    """Many findings and several attributes at once; TPR, FPR and AUROC are equal in all groups, but for what is planted.

    Attributes:
        attributes: per attribute the shares of its groups. The first decides the number of images, the second how far the
            scores of a group are spread about the threshold.
        shifts: per attribute the shift of each group's latent prevalence.
        prevalence: `[L]`, of each finding where no shift applies.
        tpr: `[L]`.
        fpr: `[L]`.
        planted: TPR of the two groups of the first attribute for the first finding; empty: none is planted.
        n_patients: patients drawn.
    """

    attributes: tuple[tuple[float, ...], ...]
    shifts: tuple[tuple[float, ...], ...]
    prevalence: tuple[float, ...]
    tpr: tuple[float, ...]
    fpr: tuple[float, ...]
    planted: tuple[float, ...] = ()
    n_patients: int = 1000

    def images(self, group: int) -> tuple[float, ...]:
        """Shares of patients with 1 to 6 images in a group of the first attribute; alike where a gap is planted."""
        return SOME if self.planted else (FEW, MANY)[group % 2]

    def planted_positives(self) -> float:
        """Expected number of positive images of the first finding in the smaller group of the first attribute."""
        smallest = np.inf
        for g, share in enumerate(self.attributes[0]):
            rate = 0.0
            rest = (list(zip(s, v, strict=True)) for s, v in zip(self.attributes[1:], self.shifts[1:], strict=True))
            for cell in product(*rest):
                shift = self.shifts[0][g] + sum(v for _, v in cell)
                rate += np.prod([s for s, _ in cell]) * special.ndtr(special.ndtri(self.prevalence[0]) + shift)
            smallest = min(smallest, self.n_patients * share * rate * np.dot(self.images(g), np.arange(1, 7)))
        return float(smallest)


def draw_family(family: Family, rng: np.random.Generator) -> Predictions:
    """Draws patients and returns what the model says about their images."""
    n_patients, n_labels = family.n_patients, len(family.prevalence)
    codes = [rng.choice(len(shares), n_patients, p=shares) for shares in family.attributes]
    n_images = np.array([rng.choice(np.arange(1, 7), n_patients, p=family.images(g)) for g in range(len(family.attributes[0]))])
    n_images = n_images[codes[0], np.arange(n_patients)]
    patient = np.repeat(np.arange(n_patients), n_images)
    n = len(patient)
    shift = sum(np.array(s)[c] for s, c in zip(family.shifts, codes, strict=True))
    in_label, in_score = (_patient_effects(rng, n_patients, n_labels) for _ in range(2))
    label = special.ndtri(family.prevalence) + shift[:, None] + np.sqrt(0.6) * in_label
    y = (label[patient] + np.sqrt(0.4) * rng.standard_normal((n, n_labels)) > 0).astype(np.float32)
    tpr = np.tile(family.tpr, (n, 1))
    if family.planted:
        tpr[:, 0] = np.array(family.planted)[codes[0]][patient]
    mean = np.where(y == 1, special.ndtri(tpr), special.ndtri(family.fpr))
    latent = mean + np.sqrt(0.5) * in_score[patient] + np.sqrt(0.5) * rng.standard_normal((n, n_labels))
    # Spread about the threshold: decisions and the order within a group stay, the scores of groups are not comparable.
    latent *= (0.6 + 0.3 * codes[1])[patient][:, None]
    attributes = tuple(
        Attribute(f"attribute {i + 1}", tuple("abcdefgh"[: len(shares)]), True) for i, shares in enumerate(family.attributes)
    )
    columns = {a.name: np.array(a.groups)[c][patient] for a, c in zip(attributes, codes, strict=True)}
    table = pd.DataFrame({"image_id": np.arange(n), "patient_id": patient, **columns})
    names = tuple(f"finding {i + 1}" for i in range(n_labels))
    return _as_predictions(table, y, latent, stats.logistic.ppf(family.prevalence), names, attributes)
