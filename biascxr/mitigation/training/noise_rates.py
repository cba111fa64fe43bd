"""How often are a group's recorded labels wrong? By group and label, as given by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from biascxr.errors import InputError, unknown_name
from biascxr.mitigation.cells import Cells


@dataclass(frozen=True)
class NoiseRates:
    """Rates of wrong labels by group and label.

    Attributes:
        false_negative: `[K, L]`, P(recorded 0 | true 1).
        false_positive: `[K, L]`, P(recorded 1 | true 0).
    """

    false_negative: np.ndarray
    false_positive: np.ndarray

    @classmethod
    def zero(cls, n_groups: int, n_labels: int) -> NoiseRates:
        """No label is wrong."""
        return cls(np.zeros((n_groups, n_labels)), np.zeros((n_groups, n_labels)))

    @property
    def any(self) -> bool:
        """Whether any label may be wrong."""
        return bool(self.false_negative.any() or self.false_positive.any())

    def describe(self, cells: Cells, label_names: tuple[str, ...]) -> tuple[str, ...]:
        """Returns a sentence per group with a rate above 0, rounded to 0.01."""
        said = []
        for name, *rates in zip(cells.names, self.false_negative, self.false_positive, strict=True):
            parts = [
                f"{what} rate " + ", ".join(f"{label} {rate:.2f}" for label, rate in zip(label_names, own, strict=True) if rate)
                for what, own in zip(("false negative", "false positive"), rates, strict=True)
                if own.any()
            ]
            said += [f"{name}: {'; '.join(parts)}"] if parts else []
        return tuple(said)


def read_rate(setting: str, text: str) -> tuple[str, str, float]:
    """Reads `GROUP=RATE` or `GROUP@LABEL=RATE`.

    Returns:
        Group, label (empty: every label) and rate.

    Raises:
        InputError: another form, or a rate outside [0, 1).
    """
    address, separator, value = text.rpartition("=")
    try:
        rate = float(value)
    except ValueError:
        separator = ""
    if not separator or not address:
        raise InputError(f"{setting} takes GROUP=RATE or GROUP@LABEL=RATE, for instance F=0.2; got {text!r}.")
    if not 0 <= rate < 1:
        raise InputError(f"{setting}: a rate must be in [0, 1); got {text!r}.")
    group, _, label = address.partition("@")
    return group.strip(), label.strip(), rate


def given_rates(
    false_negative: tuple[str, ...], false_positive: tuple[str, ...], cells: Cells, label_names: tuple[str, ...]
) -> NoiseRates:
    """Puts given rates in their places; what is not named is 0, and a label's own rate wins over its group's.

    Args:
        false_negative: texts as `read_rate` takes them.
        false_positive: likewise.
        cells: the groups there are.
        label_names: the L findings.

    Raises:
        InputError: a group or label that is not there, or two rates that sum to 1 or more.
    """
    tables = []
    for setting, texts in (("false_negative_rate", false_negative), ("false_positive_rate", false_positive)):
        table = np.zeros((len(cells), len(label_names)))
        parsed = [read_rate(f"label_noise.{setting}", text) for text in texts]
        for group, label, rate in sorted(parsed, key=lambda p: p[1] != ""):
            for kind, name, known in (("group", group, cells.names), ("label", label or label_names[0], label_names)):
                if name not in known:
                    raise unknown_name(f"{kind} in label_noise.{setting}", name, known)
            table[cells.names.index(group), label_names.index(label) if label else slice(None)] = rate
        tables.append(table)
    if (tables[0] + tables[1] >= 1).any():
        raise InputError("label_noise: false_negative_rate + false_positive_rate of a group and label must be below 1.")
    return NoiseRates(*tables)
