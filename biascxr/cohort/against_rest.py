"""One group of an attribute against all its others, as FairREAD compares White with Non-White patients."""

from __future__ import annotations

import pandas as pd

from biascxr.containers import UNKNOWN
from biascxr.errors import InputError, unknown_name


def set_against_rest(table: pd.DataFrame, texts: tuple[str, ...], attributes: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Makes attributes ones of two groups: the named one, and `"not NAME"` for every other known value.

    Unknown values stay unknown. What the rest was made of is written down, as "not WHITE" hides it.

    Args:
        table: one row per image, a column for each attribute.
        texts: `ATTRIBUTE=GROUP` each.
        attributes: those that the layout has.

    Returns:
        The table, and what was done, a sentence for each text.

    Raises:
        InputError: a text of another form, an attribute named twice or that is not there, or a group that it does not have.
    """
    notes: list[str] = []
    done: set[str] = set()
    for text in texts:
        name, separator, group = text.partition("=")
        if not separator or not group:
            raise InputError(f"--against_rest takes ATTRIBUTE=GROUP, for instance race=WHITE; got {text!r}.")
        if name in done:
            raise InputError(f"--against_rest names {name} twice; an attribute has one group that stands against the rest.")
        if name not in table or name not in attributes:
            raise unknown_name("attribute in --against_rest", name, [n for n in attributes if n in table])
        known = table.loc[table[name] != UNKNOWN, name]
        if group not in set(known):
            raise unknown_name(f"group of {name} in --against_rest", group, sorted(set(known)))
        rest = f"not {group}"
        others = known[known != group].value_counts()
        if others.empty:
            raise InputError(f"--against_rest {text}: {name} has no other known group than {group}.")
        table = table.assign(**{name: table[name].where(table[name].isin([UNKNOWN, group]), rest)})
        counts = ", ".join(f"{other} {n:,}" for other, n in others.items())
        notes.append(f"{name}: {group} against the rest; {rest!r} holds, in images: {counts}.")
        done.add(name)
    return table, notes
