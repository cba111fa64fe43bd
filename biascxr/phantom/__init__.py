"""Made-up chest X-ray cohorts with real files and known, planted bias: the demo, and the ground truth of tests.

make_phantom(PhantomConfig(mechanism="annotation", strength=0.4), Path("phantom"))
"""

from biascxr.phantom.bias import MECHANISMS
from biascxr.phantom.config import PhantomConfig
from biascxr.phantom.film import FilmSpec, draw_film
from biascxr.phantom.labels import FINDINGS, LABELS
from biascxr.phantom.population import GROUP_SHARES, RACES, Population
from biascxr.phantom.write import META_FILE, SUMMARY_FILE, TRUTH_FILE, film_specs, make_phantom, plant

__all__ = [
    "FINDINGS",
    "GROUP_SHARES",
    "LABELS",
    "MECHANISMS",
    "META_FILE",
    "RACES",
    "SUMMARY_FILE",
    "TRUTH_FILE",
    "FilmSpec",
    "PhantomConfig",
    "Population",
    "draw_film",
    "film_specs",
    "make_phantom",
    "plant",
]
