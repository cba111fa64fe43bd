"""How MIMIC-IV writes recorded race, version by version."""

from __future__ import annotations

# From version 2 on one of several finer texts, which may differ between a patient's admissions without a conflict.
FINER_RACES: dict[str, tuple[str, ...]] = {
    "WHITE": ("WHITE", "WHITE", "WHITE - OTHER EUROPEAN", "WHITE - RUSSIAN", "WHITE - EASTERN EUROPEAN"),
    "BLACK/AFRICAN AMERICAN": (
        "BLACK/AFRICAN AMERICAN",
        "BLACK/AFRICAN AMERICAN",
        "BLACK/CAPE VERDEAN",
        "BLACK/CARIBBEAN ISLAND",
        "BLACK/AFRICAN",
    ),
    "HISPANIC/LATINO": (
        "HISPANIC/LATINO - PUERTO RICAN",
        "HISPANIC/LATINO - DOMINICAN",
        "HISPANIC OR LATINO",
        "HISPANIC/LATINO - GUATEMALAN",
    ),
    "ASIAN": ("ASIAN", "ASIAN - CHINESE", "ASIAN - SOUTH EAST ASIAN", "ASIAN - ASIAN INDIAN"),
}
SILENT_RACES: dict[int, tuple[str, ...]] = {
    1: ("UNKNOWN", "UNABLE TO OBTAIN"),
    2: ("UNKNOWN", "PATIENT DECLINED TO ANSWER", "UNABLE TO OBTAIN"),
}


def race_text(race: str, draw: float, *, version: int) -> str:
    """Returns how one record writes a race group, or a text that says nothing where `race` is `""`.

    Args:
        race: one of `FINER_RACES`, or `""`.
        draw: number in [0, 1) that chooses among several texts.
        version: of MIMIC-IV, 1 or 2.
    """
    texts = SILENT_RACES[version] if race == "" else (race,) if version == 1 else FINER_RACES[race]
    return texts[int(draw * len(texts))]
