"""The lines of `ablations.py`: which part of a published method is there, which is not, and what is expected of each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from remedy_methods import CUT, NETWORK, REST

from biascxr.errors import InputError
from biascxr.mitigation import SLOTS, Recipe, parse_recipes, resolve
from biascxr.phantom import MECHANISMS

EXPECTATIONS = Path(__file__).parent / "ablation_expectations.yaml"
NOTHING, NIH = "nothing_planted", "nih"
WORLDS = (NOTHING, *MECHANISMS, NIH)
UNBIASED, SAME_LAW = "unbiased", "same_law"
JUDGED = (UNBIASED, SAME_LAW)
MEASURES = ("delta_eo", "delta_auc", "auroc", "bnsp_sd", "flips")
LOWER, SAME, HIGHER = "lower", "same", "higher"


@dataclass(frozen=True)
class Line:
    """One recipe of the table.

    Attributes:
        name: of the line.
        training: the training method.
        rule: how scores become decisions.
        settings: of the training method, as typed; those of the network and of `CUT` are not in it.
        groups_in: setting of the training method that takes the attributes, "" for none.
    """

    name: str
    training: str
    rule: str = "threshold_0.5"
    settings: dict[str, str] = field(default_factory=dict)
    groups_in: str = ""

    @property
    def is_per_group(self) -> bool:
        """Whether the rule takes attributes."""
        return self.rule.startswith("group_")

    @property
    def is_there(self) -> bool:
        """Whether the training method is in this version's table."""
        return self.training in SLOTS["training"]

    def head(self) -> str:
        """Returns what is trained, the same for lines that differ in their rule alone."""
        return repr((self.training, sorted(self.settings.items())))

    def text(self, attributes: tuple[str, ...]) -> str:
        """Returns the recipe on data with these attributes, as typed on the command line."""
        listed = f"[{', '.join(attributes)}]"
        known = {f.name for f in dataclasses.fields(resolve("training", SLOTS["training"], self.training).Settings)}
        settings = {k: v for k, v in (NETWORK | CUT.get(self.training, {})).items() if k in known} | self.settings
        settings |= {self.groups_in: listed} if self.groups_in else {}
        training = f"{self.training}({', '.join(f'{k}={v}' for k, v in settings.items())})"
        return f"{training} + {self.rule}{f'(attributes={listed})' if self.is_per_group else ''}"

    def recipe(self, attributes: tuple[str, ...]) -> Recipe:
        """Returns the recipe of `text`."""
        return parse_recipes(self.text(attributes))[-1]


def _refusion(name: str, stages: str, rule: str) -> Line:
    return Line(name, "refusion", rule, {"stages": stages}, "demographics")


def _causal(name: str, **settings: str) -> Line:
    return Line(name, "causal_noise", settings=settings, groups_in="attributes")


def _two_step(name: str, **settings: str) -> Line:
    return Line(name, "two_step", settings=settings, groups_in="attributes")


ERM = Line("erm", "erm")
LINES = (
    ERM,
    Line("erm_fixed_fpr", "erm", "fixed_fpr"),
    Line("erm_min_gap", "erm", "min_gap"),
    Line("fairread_thresholds", "erm", "group_min_gap"),
    _refusion("fairread_stage_1", "disentangle", "min_gap"),
    _refusion("fairread_stage_2", "refuse", "min_gap"),
    _refusion("fairread", "both", "group_min_gap"),
    _refusion("fairread_threshold_0.5", "both", "threshold_0.5"),
    _causal("causal_no_graph", use_graph="false", supervise="false"),  # without it there is nothing to supervise
    _causal("causal_no_noise", use_noise="false"),
    _causal("causal_no_supervision", supervise="false"),
    _causal("causal_noise"),
    _two_step("two_step_no_group_term", finding_phase_weight="0", group_phase_weight="0"),
    _two_step("two_step_tenth", finding_phase_weight="1", group_phase_weight="100"),
    _two_step("two_step"),
    _two_step("two_step_tenfold", finding_phase_weight="100", group_phase_weight="10000"),
    _two_step("two_step_adversary", group_head="adversary"),
)


def same_rule(line: Line) -> Line:
    """Returns the line of `erm` with the same rule, which tells what the training adds to it."""
    return next(own for own in LINES if own.training == ERM.training and own.rule == line.rule)


def read_expectations(path: Path = EXPECTATIONS) -> dict[tuple[str, str, str, str], tuple[str, str]]:
    """Reads the file and holds it against the lines, worlds and measures.

    Returns:
        (line, world, judged, measure) -> (lower, same or higher; why).

    Raises:
        InputError: a line without an expectation or the other way round, a place that is unknown, not covered or named twice,
            or a measure or direction that is unknown.
    """
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    wanted = {line.name for line in LINES if line != ERM}
    odd = sorted(wanted ^ set(read))
    if odd:
        raise InputError(f"{path.name} and the lines of ablations.py differ in: {', '.join(odd)}. Both need every line.")
    found = {}
    for line, entries in read.items():
        for (world, judged), (directions, why) in _by_place(path.name, line, entries).items():
            for measure in MEASURES:
                found[line, world, judged, measure] = directions.get(measure, SAME), why
    return found


def _by_place(file: str, line: str, entries: list[dict]) -> dict[tuple[str, str], tuple[dict[str, str], str]]:
    found: dict[tuple[str, str], tuple[dict[str, str], str]] = {}
    rest = None
    for entry in entries:
        directions = entry["expect"]
        if not (set(directions) <= set(MEASURES) and set(directions.values()) <= {LOWER, SAME, HIGHER}):
            raise InputError(
                f"{file}, {line}: expect takes {', '.join(MEASURES)}, each {LOWER}, {SAME} or {HIGHER}; got {directions}."
            )
        answer = directions, entry["because"]
        worlds = entry["where"] if isinstance(entry["where"], list) else [entry["where"]]
        for world in worlds:
            if world == REST:
                rest = answer
                continue
            for judged in [entry["judged"]] if "judged" in entry else JUDGED:
                if world not in WORLDS or judged not in JUDGED or (world, judged) in found:
                    raise InputError(
                        f"{file}, {line}: {world!r} judged {judged!r} is unknown or named twice. Known: {', '.join(WORLDS)}; "
                        f"{', '.join(JUDGED)}."
                    )
                found[world, judged] = answer
    places = [(world, judged) for world in WORLDS for judged in JUDGED]
    missing = sorted({world for world, judged in places if (world, judged) not in found})
    if missing and rest is None:
        raise InputError(f"{file}, {line}: nothing is expected under {', '.join(missing)}. Add them, or a line for {REST}.")
    return {place: found.get(place, rest) for place in places}
