"""Which methods `remedies.py` measures, with which settings, and what is expected of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from biascxr.errors import InputError
from biascxr.mitigation import SLOTS, Recipe, parse_recipes, resolve
from biascxr.mitigation.decision import CALIBRATORS
from biascxr.phantom import MECHANISMS

HERE = Path(__file__).parent
EXPECTATIONS, SETTINGS = HERE / "expectations.yaml", HERE / "remedies_settings.yaml"
NOT_MEASURED, REST = "not_measured", "rest"
VERDICTS = ("help", "no_effect", "harm")
# Loss that a method is judged on, by what its slot can move.
LOG_LOSS, RECALIBRATED, DECISION = "log_loss", "recalibrated", "decision"
# Settings of members that are worth a line of their own: name -> (member, settings).
VARIANTS = {
    "leace_within_label": ("leace", {"within_label": "true"}),
    "erm_demographics": ("erm", {"demographics": "[race]"}),
    "erm_worst_group_stopping": ("erm", {"criterion": "worst_group_loss"}),
}
# What `--tune` tries for each method, beside its defaults; the values of one setting or several.
GRIDS: dict[str, list[dict[str, str]]] = {
    "cluster_downsample": [{"n_clusters": "32"}],
    "reweigh": [{"max_weight": "5.0"}],
    "label_group_balance": [{"max_weight": "5.0"}],
    "pca": [{"variance": "0.99"}],
    "linear": [{"l2": "1e-3"}, {"l2": "1e-2"}],
    "focal": [{"gamma": "0.5"}],
    "mixup": [{"alpha": "1.0"}],
    "group_dro": [{"step_size": "0.001"}, {"step_size": "0.1"}],
    "jtt": [{"up_weight": "30.0"}],
    "dfr": [{"c": "0.1"}, {"c": "0.01"}],
    "dann": [{"strength": "0.3"}, {"strength": "3.0"}],
    "cdann": [{"strength": "0.3"}, {"strength": "3.0"}],
    "domain_independent": [{"inference": "mean_probability"}],
    **{f"group_{rule}": [{"shrinkage": "5.0"}] for rule in ("fixed_fpr", "youden", "gmean", "min_gap", "f1")},
    **{f"group_{name}": [{"shrinkage": "100.0"}] for name in ("platt", "isotonic", "temperature")},
}
# Every network's, chosen for `erm` on the development worlds: small, for worlds of 32 dimensions and 3,000 patients.
NETWORK = {
    "hidden": "[64]",
    "dropout": "0.3",
    "learning_rate": "3e-3",
    "batch_size": "256",
    "max_epochs": "30",
    "patience": "10",
}


# Published networks, cut to worlds of this size; of `refusion`, epochs of each of its three stages.
CUT = {
    "refusion": {"dropout": "0.1", "max_epochs": "15", "patience": "5"},
    "causal_noise": {"copies": "4", "finding_units": "8", "attribute_units": "8", "mask_units": "32", "head_hidden": "[64]"},
}


@dataclass(frozen=True)
class Method:
    """A remedy on its own.

    Attributes:
        name: in the tables, or a key of `VARIANTS`.
        slot: whose member it is.
        member: the member's name.
        settings: as typed on the command line; the network's own are not in it.
    """

    name: str
    slot: str
    member: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def judged_on(self) -> str:
        """The loss that its slot can move."""
        if self.slot != "decision":
            return RECALIBRATED
        return LOG_LOSS if self.member in CALIBRATORS else DECISION

    def having(self, settings: dict[str, str]) -> Method:
        """Returns the method with these settings; a variant keeps its own."""
        return dataclasses.replace(self, settings=settings | self.settings)

    def named(self, name: str) -> Method:
        """Returns the method under another name."""
        return dataclasses.replace(self, name=name)

    def recipe(self) -> Recipe:
        """Returns the recipe: the method, `erm` in the training slot unless it is one, and a global Platt scaling.

        The scaling is left out for a method of the decision slot, which is put to `erm`'s own scores.
        """
        own = _written(self.member, self._all_settings(self.member) | self.settings)
        parts = [own] if self.slot == "training" else [own, _written("erm", self._all_settings("erm"))]
        parts += [] if self.slot == "decision" else ["platt"]
        return parse_recipes(" + ".join(parts))[-1]

    @staticmethod
    def _all_settings(member: str) -> dict[str, str]:
        """The network's settings, as far as a training method has them."""
        if member not in SLOTS["training"]:
            return {}
        known = {f.name for f in dataclasses.fields(resolve("training", SLOTS["training"], member).Settings)}
        return {name: value for name, value in (NETWORK | CUT.get(member, {})).items() if name in known}


ERM = Method("erm", "training", "erm")


def _written(member: str, settings: dict[str, str]) -> str:
    return f"{member}({', '.join(f'{k}={v}' for k, v in settings.items())})" if settings else member


def all_methods(not_measured: dict[str, str]) -> dict[str, Method]:
    """Returns every entry of the four slots' tables but those not measured, and the variants, in the order of the slots."""
    methods = {}
    for slot, table in SLOTS.items():
        for name in table:
            if name not in not_measured:
                methods[name] = Method(name, slot, name)
        for name, (member, settings) in VARIANTS.items():
            if member in table:
                methods[name] = Method(name, slot, member, settings)
    return methods


def read_settings(path: Path = SETTINGS) -> dict[str, dict[str, str]]:
    """Returns the settings chosen on development worlds, by method; none where the file is not there."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))["methods"] if path.is_file() else {}


@dataclass(frozen=True)
class Expectations:
    """What theory says.

    Attributes:
        verdicts: (method, mechanism or `nothing_planted`) -> (help, no_effect or harm; why).
        not_measured: name -> why.
    """

    verdicts: dict[tuple[str, str], tuple[str, str]]
    not_measured: dict[str, str]


def read_expectations(path: Path = EXPECTATIONS) -> Expectations:
    """Reads the file and holds it against the tables.

    Raises:
        InputError: a method without an expectation, or an expectation without a method; a mechanism named twice or unknown.
    """
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    not_measured = read.pop(NOT_MEASURED)
    read = {name: lines for name, lines in read.items() if name not in not_measured}  # written, and still to be measured
    expected, there = set(read), set(all_methods(not_measured))
    if there - expected:
        raise InputError(f"{path.name} expects nothing of: {', '.join(sorted(there - expected))}. Add them before a run.")
    if expected - there:
        raise InputError(f"{path.name} expects something of what is in no table: {', '.join(sorted(expected - there))}.")
    gone = set(not_measured) - {name for table in SLOTS.values() for name in table}
    if gone:
        raise InputError(f"{path.name} leaves out what is in no table: {', '.join(sorted(gone))}.")
    verdicts = {}
    for method, lines in read.items():
        for where, (verdict, why) in _by_mechanism(path, method, lines).items():
            verdicts[method, where] = verdict, why
    return Expectations(verdicts, not_measured)


def _by_mechanism(path: Path, method: str, lines: list[dict]) -> dict[str, tuple[str, str]]:
    places = (*MECHANISMS, "nothing_planted")
    found: dict[str, tuple[str, str]] = {}
    rest = None
    for line in lines:
        if line["expect"] not in VERDICTS:
            raise InputError(f"{path.name}, {method}: expect must be one of {', '.join(VERDICTS)}; got {line['expect']!r}.")
        named = line["where"] if isinstance(line["where"], list) else [line["where"]]
        for where in named:
            if where == REST:
                rest = line["expect"], line["because"]
                continue
            if where not in places or where in found:
                raise InputError(f"{path.name}, {method}: {where!r} is unknown or named twice. Known: {', '.join(places)}.")
            found[where] = line["expect"], line["because"]
    missing = [where for where in places if where not in found]
    if missing and rest is None:
        raise InputError(f"{path.name}, {method}: nothing is expected under {', '.join(missing)}.")
    return {where: found.get(where, rest) for where in places}
