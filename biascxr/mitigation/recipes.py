"""Recipes: a choice in each of the four slots, written as names joined by `+`; published methods by one name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from biascxr.errors import InputError, unknown_name
from biascxr.mitigation.base import Member, read_setting, resolve
from biascxr.mitigation.decision import DECISION, RULES
from biascxr.mitigation.representation import REPRESENTATION
from biascxr.mitigation.sampling import SAMPLING
from biascxr.mitigation.training import TRAINING

SLOTS = {"sampling": SAMPLING, "representation": REPRESENTATION, "training": TRAINING, "decision": DECISION}
DEFAULTS = {"sampling": "none", "representation": "none", "training": "erm", "decision": "fixed_fpr"}
BASELINE = "erm"
PLAIN = "none"  # accepted in a recipe's text, and says nothing
# Published methods that span slots. A preset may stand for a whole recipe or be joined to other parts.
PRESETS = {
    # BiasCXR's code: cells to their median size, then the network with demographics, batches of 16, one epoch, 0.5.
    "biascxr": (
        "median_balance + erm(demographics=[sex, race, age_group], batch_size=16, max_epochs=1, patience=1) + threshold_0.5"
    ),
    # FairREAD: disentangled, re-fused with the recorded attributes, a threshold of its own for every joint subgroup.
    "fairread": "refusion + group_min_gap(attributes=[race, sex, age_group])",
}
PART = re.compile(r"^(?P<name>[\w.]+)\s*(?:\((?P<settings>.*)\))?$", re.DOTALL)


@dataclass(frozen=True)
class Recipe:
    """One remedy: which methods, in which slot, with which settings.

    Attributes:
        name: as written, `cluster_downsample+erm+group_youden`.
        parts: per slot (name, settings) of its members, in order, at least one each: training has exactly one, decision any
            number of calibrators and then one rule. Settings None: the defaults.
    """

    name: str
    parts: dict[str, tuple[tuple[str, object], ...]] = field(default_factory=dict)

    def methods(self, slot: str) -> tuple[str, ...]:
        """Returns the names of a slot's members, in order."""
        return tuple(name for name, _ in self.parts[slot])

    def members(self, slot: str) -> list[Member]:
        """Returns new, unfitted members of a slot, in order."""
        return [resolve(slot, SLOTS[slot], name)(settings) for name, settings in self.parts[slot]]

    def view_settings(self) -> object | None:
        """Returns the settings from which augmented views are planned; None where the recipe uses none."""
        return next((s.settings for s in self.members("sampling") if s.uses_views), None)

    def describe(self) -> dict:
        """Returns methods and their settings as plain types, for fingerprints, the report and `from_description`."""
        return {
            slot: [{"method": m.name, "settings": dataclasses.asdict(m.settings)} for m in self.members(slot)] for slot in SLOTS
        }

    @classmethod
    def from_description(cls, name: str, described: Mapping[str, list[dict]]) -> Recipe:
        """Returns the recipe that `describe` told of."""
        parts = {}
        for slot in SLOTS:
            members = [(p["method"], resolve(slot, SLOTS[slot], p["method"]).Settings, p["settings"]) for p in described[slot]]
            parts[slot] = tuple(
                (method, settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}))
                for method, settings, given in members
            )
        return cls(name, parts)


def parse_recipes(text: str, settings: tuple[str, ...] = ()) -> tuple[Recipe, ...]:
    """Reads a comma-separated list of recipes; `erm` is added in front where it is missing.

    Args:
        text: for instance `"erm, cluster_downsample+erm+group_youden, group_dro(step_size=0.1)"`. Slots are told apart by the
            tables, so the order matters only within one slot. Settings in parentheses are for that place alone.
        settings: `METHOD.NAME=VALUE`, for all recipes that use the method; settings in parentheses win.

    Raises:
        InputError: an unknown name (the nearest known one is named), two members where a slot takes one, a recipe given
            twice, or a setting that no method has.
    """
    chosen = group_settings(settings)
    for method, values in chosen.items():  # a setting is checked even where no recipe uses its method
        build_settings(method, values)
    recipes = [_parse_recipe(part.strip(), chosen) for part in split_outside(text, ",") if part.strip()]
    if BASELINE not in [r.name for r in recipes]:
        recipes.insert(0, _parse_recipe(BASELINE, chosen))
    names = [r.name for r in recipes]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError(f"Recipe {twice[0]!r} is listed twice.")
    return tuple(sorted(recipes, key=lambda r: r.name != BASELINE))


def _parse_recipe(text: str, chosen: dict[str, dict[str, str]]) -> Recipe:
    parts: dict[str, list[tuple[str, object]]] = {slot: [] for slot in SLOTS}
    for part in _expanded(text):
        name, own = _name_and_settings(part)
        if not name:
            raise InputError(f"Recipe {text!r} has an empty part: names are joined by one + each.")
        if own and name in (PLAIN, *PRESETS):
            what = "a preset's settings are those of its methods" if name in PRESETS else "it has no settings"
            raise InputError(f"{name} takes nothing in parentheses ({what}); got {part!r}.")
        if name == PLAIN:
            continue
        slot = slot_of(name)
        if slot is None:
            raise unknown_name("recipe part", name, [*PRESETS, *(n for table in SLOTS.values() for n in table)])
        parts[slot].append((name, build_settings(name, chosen.get(name, {}) | own)))
    for slot, default in DEFAULTS.items():
        named = [name for name, _ in parts[slot]]
        if not named or (slot == "decision" and not set(named) & set(RULES)):
            parts[slot].append((default, build_settings(default, chosen.get(default, {}))))
    # Scores are calibrated before they are decided upon, wherever the names stand.
    parts["decision"].sort(key=lambda part: part[0] in RULES)
    rules = [name for name, _ in parts["decision"] if name in RULES]
    for names, what in (
        ([name for name, _ in parts["training"]], "the training slot takes one method"),
        (rules, "a recipe takes one decision rule"),
    ):
        if len(names) > 1:
            raise InputError(f"Recipe {text!r} names {' and '.join(names)}: {what}.")
    samplers = [resolve("sampling", SAMPLING, name) for name, _ in parts["sampling"]]
    late = [sampler.name for sampler in samplers[1:] if sampler.uses_views]
    if late:
        raise InputError(f"Recipe {text!r}: {late[0]} chooses among augmented views, so it must be the first sampler.")
    return Recipe(re.sub(r"\s+", "", text), {slot: tuple(own) for slot, own in parts.items()})


def _expanded(text: str) -> list[str]:
    """Returns the parts of a recipe, presets replaced by theirs."""
    parts = []
    for part in split_outside(text, "+"):
        parts += split_outside(PRESETS[part.strip()], "+") if part.strip() in PRESETS else [part]
    return [part.strip() for part in parts]


def _name_and_settings(part: str) -> tuple[str, dict[str, str]]:
    found = PART.match(part)
    if not found:
        return part, {}
    texts = [t for t in split_outside(found["settings"] or "", ",") if t.strip()]
    settings = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise InputError(f"Settings in parentheses are NAME=VALUE, for instance erm(batch_size=16); got {text.strip()!r}.")
        if name.strip() in settings:
            raise InputError(f"{found['name']}({found['settings']}) sets {name.strip()} twice.")
        settings[name.strip()] = value.strip()
    return found["name"], settings


def split_outside(text: str, separator: str) -> list[str]:
    """Splits a text at a separator, but not inside brackets or parentheses.

    Raises:
        InputError: brackets that do not match.
    """
    parts, opened = [""], []
    for character in text:
        if character in "([":
            opened.append({"(": ")", "[": "]"}[character])
        elif character in ")]" and (not opened or opened.pop() != character):
            raise InputError(f"Brackets do not match in {text!r}.")
        if character == separator and not opened:
            parts.append("")
        else:
            parts[-1] += character
    if opened:
        raise InputError(f"Brackets do not match in {text!r}.")
    return parts


def slot_of(method: str) -> str | None:
    """Returns the slot that has a method of this name, or None."""
    return next((slot for slot, table in SLOTS.items() if method in table and method != PLAIN), None)


def group_settings(texts: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Reads `METHOD.NAME=VALUE` texts into values by method.

    Raises:
        InputError: a text of another form, or an unknown method.
    """
    values: dict[str, dict[str, str]] = {}
    for text in texts:
        address, separator, value = text.partition("=")
        # The last dot parts method and setting: `threshold_0.5` holds a dot itself.
        method, dot, name = address.rpartition(".")
        if not separator or not dot:
            raise InputError(f"--settings takes METHOD.NAME=VALUE, for instance erm.batch_size=16; got {text!r}.")
        if slot_of(method) is None:
            raise unknown_name("method in --settings", method, {n for t in SLOTS.values() for n in t} - {PLAIN})
        if name in values.setdefault(method, {}):
            raise InputError(f"--settings sets {address} twice.")
        values[method][name] = value
    return values


def build_settings(method: str, values: dict[str, str]) -> object:
    """Returns a method's settings object, from values as typed; None, for its defaults, where there are none.

    Raises:
        InputError: an unknown setting, a value of another type or out of its range.
    """
    if not values:
        return None
    slot = slot_of(method)
    kind = resolve(slot, SLOTS[slot], method).Settings
    return kind(**{name: read_setting(kind, method, name, value) for name, value in values.items()})
