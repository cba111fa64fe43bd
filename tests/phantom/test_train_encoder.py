"""The demo's encoder: the shipped file, and how such a file is made."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import biascxr.phantom
from biascxr.errors import InputError
from biascxr.phantom import PhantomConfig

SHIPPED = Path(biascxr.phantom.__file__).parent / "encoder.keras"
MAX_BYTES = 16 * 2**20


def load(path: Path):
    import keras

    return keras.models.load_model(path, compile=False, safe_mode=True)


def check_form(path: Path) -> dict:
    """A file that the pipeline can embed films with, and its card; returns the card."""
    model = load(path)
    assert model.input_shape == (None, 256, 256, 1)
    assert model.layers[-1].name == "vector"
    films = np.random.default_rng(0).random((3, 256, 256, 1), dtype=np.float32)
    vectors = np.asarray(model.predict_on_batch(films))
    assert vectors.shape == (3, model.output_shape[-1]) and vectors.dtype == np.float32
    assert 256 <= vectors.shape[1] <= 768
    assert np.isfinite(vectors).all()
    assert np.ptp(vectors, axis=0).max() > 0
    return json.loads(path.with_suffix(".card.json").read_text(encoding="utf-8"))


def test_the_shipped_encoder_loads_in_safe_mode_and_turns_films_into_finite_vectors():
    check_form(SHIPPED)


def test_the_shipped_encoder_is_small():
    assert SHIPPED.stat().st_size < MAX_BYTES


def test_the_card_names_other_films_than_the_demos():
    card = json.loads(SHIPPED.with_suffix(".card.json").read_text(encoding="utf-8"))
    assert card["phantom_seed"] != PhantomConfig().seed
    assert f"phantom seed {card['phantom_seed']}," in card["trained_on"] and "made-up" in card["trained_on"]
    assert card["mechanism_strength"] == 0.0
    assert f"--seed {card['phantom_seed']} " in card["command"]
    assert 0.75 < card["validation_macro_auroc"] <= 1.0


def test_the_vectors_of_made_up_films_are_centred_and_of_unit_scale(tmp_path):
    from biascxr.cohort import build_cohort
    from biascxr.config import CohortConfig
    from biascxr.phantom import make_phantom
    from biascxr.phantom.train_encoder import read_films

    cohort = build_cohort(make_phantom(PhantomConfig(n_patients=40, seed=7), tmp_path / "films"), None, CohortConfig(), seed=0)
    films = read_films(cohort)[..., None].astype(np.float32) / 255
    vectors = np.asarray(load(SHIPPED).predict_on_batch(films))
    assert abs(vectors.mean()) < 0.2
    assert 0.7 < vectors.std() < 1.4


def test_a_shift_by_nothing_is_the_film_itself():
    from biascxr.phantom.train_encoder import IMAGE_SIZE, MAX_SHIFT, _shift

    film = np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE)).astype(np.uint8)
    np.testing.assert_array_equal(_shift(film, MAX_SHIFT, MAX_SHIFT), film)
    np.testing.assert_array_equal(_shift(film, MAX_SHIFT + 3, MAX_SHIFT)[:-3], film[3:])


@pytest.mark.parametrize(
    ("output", "settings", "message"),
    [
        ("encoder.h5", {}, "must be a file that ends in .keras"),
        ("encoder.keras", {"seed": PhantomConfig().seed}, "must not be the demo's"),
        ("encoder.keras", {"epochs": 0}, "`epochs` must be 1 or more"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_film_is_drawn(tmp_path, output, settings, message):
    from biascxr.phantom.train_encoder import train_encoder

    with pytest.raises(InputError, match=message):
        train_encoder(tmp_path / output, **settings)
    assert not any(tmp_path.iterdir())


def test_neither_phantom_nor_this_module_loads_tensorflow():
    code = (
        "import sys, biascxr.phantom; assert 'biascxr.phantom.train_encoder' not in sys.modules; "
        "import biascxr.phantom.train_encoder; assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_tiny_cohort_gives_a_file_of_the_same_form(tmp_path):
    from biascxr.phantom.train_encoder import main

    output = tmp_path / "tiny.keras"
    main([str(output), "--n_patients", "30", "--seed", "5", "--epochs", "1"])
    card = check_form(output)
    shipped = json.loads(SHIPPED.with_suffix(".card.json").read_text(encoding="utf-8"))
    assert set(card) == set(shipped)
    assert card["phantom_seed"] == 5 and card["n_patients"] == 30
    assert load(output).output_shape == load(SHIPPED).output_shape
