"""Made-up chest X-ray cohorts with real files and known, planted bias: the demo, and the ground truth of tests.

make_phantom(PhantomConfig(mechanism="annotation", strength=0.4), Path("phantom"))
"""

from biascxr.phantom.config import PhantomConfig
from biascxr.phantom.draw import Phantom, draw_phantom, film_specs
from biascxr.phantom.film import FilmSpec, draw_film
from biascxr.phantom.forms import FORMS, find_form
from biascxr.phantom.labels import FINDINGS, LABELS
from biascxr.phantom.mechanisms import MECHANISMS, Effect, Mechanism
from biascxr.phantom.population import GROUP_SHARES, RACES, Population, images_per_patient
from biascxr.phantom.vectors import VectorConfig, VectorPhantom, draw_vectors
from biascxr.phantom.write import META_FILE, SUMMARY_FILE, TRUTH_FILE, make_phantom

__all__ = [
    "FINDINGS",
    "FORMS",
    "GROUP_SHARES",
    "LABELS",
    "MECHANISMS",
    "META_FILE",
    "RACES",
    "SUMMARY_FILE",
    "TRUTH_FILE",
    "Effect",
    "FilmSpec",
    "Mechanism",
    "Phantom",
    "PhantomConfig",
    "Population",
    "VectorConfig",
    "VectorPhantom",
    "draw_film",
    "draw_phantom",
    "draw_vectors",
    "film_specs",
    "find_form",
    "images_per_patient",
    "make_phantom",
]
