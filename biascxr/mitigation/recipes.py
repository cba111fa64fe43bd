"""Recipes: a choice in each of the four slots, written as names joined by `+`."""

from __future__ import annotations

from dataclasses import dataclass, field

from biascxr.errors import InputError, unknown_name
from biascxr.mitigation.base import Member, read_setting, resolve
from biascxr.mitigation.decision import DECISION
from biascxr.mitigation.representation import REPRESENTATION
from biascxr.mitigation.sampling import SAMPLING
from biascxr.mitigation.training import TRAINING

SLOTS = {"sampling": SAMPLING, "representation": REPRESENTATION, "training": TRAINING, "decision": DECISION}
DEFAULTS = {"sampling": "none", "representation": "none", "training": "erm", "decision": "fixed_fpr"}
BASELINE = "erm"
PLAIN = "none"  # accepted in a recipe's text, and says nothing


@dataclass(frozen=True)
class Recipe:
    """One remedy: which methods, in which slot, with which settings.

    Attributes:
        name: as written, `cluster_downsample+erm+group_youden`; also its folder.
        parts: per slot the names of its members, in order; training has exactly one.
        settings: per method name, its settings object.
    """

    name: str
    parts: dict[str, tuple[str, ...]]
    settings: dict[str, object] = field(default_factory=dict)

    def members(self, slot: str) -> list[Member]:
        """Returns new, unfitted members of a slot, in order; the slot's default where the recipe names none."""
        names = self.parts[slot] or (DEFAULTS[slot],)
        return [resolve(slot, SLOTS[slot], name)(self.settings.get(name)) for name in names]

    def describe(self) -> dict:
        """Returns methods and their settings as plain types, for fingerprints and the report."""
        return {slot: [{"method": m.name, "settings": vars(m.settings)} for m in self.members(slot)] for slot in SLOTS}


def parse_recipes(text: str, settings: tuple[str, ...] = ()) -> tuple[Recipe, ...]:
    """Reads a comma-separated list of recipes; `erm` is added in front where it is missing.

    Args:
        text: for instance `"erm, cluster_downsample+erm+group_youden"`. Slots are told apart by the tables, so the order
            matters only within one slot.
        settings: `METHOD.NAME=VALUE`, for all recipes that use the method.

    Raises:
        InputError: an unknown name (the nearest known one is named), two members where a slot takes one, a recipe given
            twice, or a setting that no method has.
    """
    chosen = parse_settings(settings)
    recipes = [_parse_recipe(part.strip(), chosen) for part in text.split(",") if part.strip()]
    if BASELINE not in [r.name for r in recipes]:
        recipes.insert(0, _parse_recipe(BASELINE, chosen))
    names = [r.name for r in recipes]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError(f"Recipe {twice[0]!r} is listed twice.")
    return tuple(sorted(recipes, key=lambda r: r.name != BASELINE))


def _parse_recipe(text: str, settings: dict[str, object]) -> Recipe:
    parts: dict[str, tuple[str, ...]] = {slot: () for slot in SLOTS}
    for name in (n.strip() for n in text.split("+")):
        if name == PLAIN:
            continue
        slot = next((slot for slot, table in SLOTS.items() if name in table), None)
        if slot is None:
            raise unknown_name("recipe part", name, [n for table in SLOTS.values() for n in table])
        parts[slot] = (*parts[slot], name)
    # One sampler, because rows of a sample are rows of the split; one rule, because a decision is final.
    for slot in ("sampling", "training", "decision"):
        if len(parts[slot]) > 1:
            raise InputError(f"Recipe {text!r} names {' and '.join(parts[slot])}: the {slot} slot takes one method.")
    return Recipe(text.replace(" ", ""), parts, settings)


def parse_settings(texts: tuple[str, ...]) -> dict[str, object]:
    """Reads `METHOD.NAME=VALUE` texts into settings objects by method.

    Raises:
        InputError: a text of another form, an unknown method or setting, or a value of another type.
    """
    values: dict[str, dict[str, object]] = {}
    classes: dict[str, type] = {}
    for text in texts:
        address, separator, value = text.partition("=")
        # The last dot parts method and setting: `threshold_0.5` holds a dot itself.
        method, dot, name = address.rpartition(".")
        if not separator or not dot:
            raise InputError(f"--settings takes METHOD.NAME=VALUE, for instance erm.batch_size=16; got {text!r}.")
        slot = next((slot for slot, table in SLOTS.items() if method in table and method != PLAIN), None)
        if slot is None:
            raise unknown_name("method in --settings", method, {n for t in SLOTS.values() for n in t} - {PLAIN})
        classes[method] = resolve(slot, SLOTS[slot], method).Settings
        values.setdefault(method, {})[name] = read_setting(classes[method], method, name, value)
    return {method: classes[method](**chosen) for method, chosen in values.items()}
