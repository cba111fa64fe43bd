"""How `remedies.py` chooses settings: a small grid for each method, on development worlds that no table shows."""

from __future__ import annotations

import pandas as pd
import yaml
from remedy_measures import MARKED
from remedy_methods import ERM, GRIDS, Method
from remedy_worlds import NOTHING, WorldKey

# Other seeds and another strength than the held-out worlds.
SEEDS, STRENGTH = (101,), 0.5


def development_keys(families: list[str], mechanisms: list[str]) -> list[WorldKey]:
    """Returns the development worlds, those without bias among them: a setting that helps must not cost where there is none."""
    places = [(NOTHING, 0.0), *((mechanism, STRENGTH) for mechanism in mechanisms)]
    return [WorldKey(family, name, strength, seed) for seed in SEEDS for name, strength in places for family in families]


def candidates(method: Method) -> list[Method]:
    """Returns the method with its defaults and with each line of its grid; those with one line only are not tuned."""
    if method.name not in GRIDS:
        return []
    return [method.having(settings).named(_title(method.name, settings)) for settings in ({}, *GRIDS[method.name])]


def choose(found: pd.DataFrame, methods: list[Method]) -> str:
    """Returns the text of the settings file: of each method the line with the lowest mean loss of the group.

    The mean is over development worlds, of the loss that the method is judged on, as a change from `erm`; one setting for all
    mechanisms, since whoever uses a method does not know which bias the data have. The table of all changes stands below.
    """
    found = found[(found["mechanism"] == "acquisition") == (found["findings"] == MARKED)]
    world = ["family", "mechanism", "seed"]
    base = found[found["method"] == ERM.name].set_index(world)
    chosen, changes = {}, {}
    for method in methods:
        lines = [{}, *GRIDS.get(method.name, [])]
        if len(lines) == 1:
            continue
        scores = []
        for settings in lines:
            title = _title(method.name, settings)
            own = found[found["method"] == title].set_index(world)[method.judged_on]
            scores.append(float((own - base[method.judged_on]).mean()))
            changes[title] = round(scores[-1], 5)
        best = lines[scores.index(min(scores))]
        if best:
            chosen[method.name] = best
    head = (
        "# Written by `python benchmarks/remedies.py --tune`: settings chosen on development worlds (seeds "
        f"{', '.join(map(str, SEEDS))}, strength {STRENGTH:g}).\n# A method that is not named keeps its defaults. `changes`: "
        "mean loss of the group less that of `erm`, of every line tried.\n"
    )
    return head + yaml.safe_dump({"methods": chosen, "changes": changes}, sort_keys=False, width=120)


def _title(name: str, settings: dict[str, str]) -> str:
    return f"{name} [{', '.join(f'{k}={v}' for k, v in settings.items())}]"
