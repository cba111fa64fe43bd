"""The race groups that layouts sort recorded values into, and the reasons why some have none."""

from __future__ import annotations

# MIMIC-IV's own words, so that groups of different data sets carry one name. What says nothing is none of them
# (NOT_RECORDED in base.py).
WHITE = "WHITE"
BLACK = "BLACK/AFRICAN AMERICAN"
HISPANIC = "HISPANIC/LATINO"
ASIAN = "ASIAN"
NATIVE_AMERICAN = "AMERICAN INDIAN/ALASKA NATIVE"
PACIFIC = "NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER"
MULTIPLE = "MULTIPLE RACE/ETHNICITY"
OTHER = "OTHER"
RACE_GROUPS = (WHITE, BLACK, HISPANIC, ASIAN, NATIVE_AMERICAN, PACIFIC, MULTIPLE, OTHER)
