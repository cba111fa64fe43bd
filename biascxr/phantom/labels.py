"""The 14 CheXpert labels: their order, the rule of No Finding, and how a report leaves them in a table."""

from __future__ import annotations

import numpy as np

LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
NO_FINDING = LABELS.index("No Finding")
SUPPORT_DEVICES = LABELS.index("Support Devices")
# What is drawn: every label but No Finding, which is the absence of the others.
FINDINGS = tuple(name for name in LABELS if name != "No Finding")
# A tube or a pacemaker is not a disease: CheXpert lets it stand beside No Finding.
DISEASES = np.array([name not in ("No Finding", "Support Devices") for name in LABELS])


def with_no_finding(labels: np.ndarray) -> np.ndarray:
    """Sets No Finding to true exactly where no disease is labelled positive.

    Args:
        labels: `[n, 14] bool`, columns in the order of `LABELS`; the No Finding column is ignored.

    Returns:
        `[n, 14] bool`, a copy.
    """
    labels = np.array(labels, dtype=bool)
    labels[:, NO_FINDING] = ~labels[:, DISEASES].any(axis=1)
    return labels


def as_reported(labels: np.ndarray, rng: np.random.Generator, *, uncertain_share: float, blank_share: float) -> np.ndarray:
    """Turns yes-or-no labels into what CheXpert's labeller leaves: 1, 0, -1 (uncertain) or blank.

    A report says "possible" more often of something that is there, so a tenth of `uncertain_share` applies to
    negatives. No Finding is 1 or blank, never 0 or -1, as in MIMIC-CXR's tables.

    Args:
        labels: `[n, 14] bool`, columns in the order of `LABELS`.
        rng: draws one number per cell, so that a flipped label elsewhere changes no other cell.
        uncertain_share: share of positives reported as uncertain, in [0, 1].
        blank_share: share of negatives that the report does not mention, in [0, 1].

    Returns:
        `[n, 14] float32` in {1, 0, -1, NaN}; NaN is a blank cell.
    """
    draw = rng.random(labels.shape)
    # Uncertain cells lie at one end of the draw and blanks at the other, so that the two never compete.
    reported = np.where(labels, 1.0, np.where(draw < blank_share, np.nan, 0.0))
    reported = np.where(draw > 1.0 - np.where(labels, 1.0, 0.1) * uncertain_share, -1.0, reported)
    reported[:, NO_FINDING] = np.where(labels[:, NO_FINDING], 1.0, np.nan)
    # An uncertain disease is a mention: such a study is not labelled No Finding.
    mentioned = (reported[:, DISEASES] == -1.0).any(axis=1)
    reported[mentioned, NO_FINDING] = np.nan
    return reported.astype(np.float32)
