"""The card beside an encoder's weights: where it lies, that what it says is passed on, and that a broken one is named."""

from __future__ import annotations

import keras
import pytest

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings import find_encoder, weights_files
from biascxr.embeddings.base import FILE_ENDINGS, card_path
from biascxr.errors import InputError


@pytest.fixture
def weights(tmp_path):
    inputs = keras.Input((32, 32, 1))
    path = tmp_path / "small.keras"
    keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)).save(path)
    return path


@pytest.mark.parametrize("ending", FILE_ENDINGS)
def test_a_card_has_the_name_of_the_weights_without_their_ending_be_it_in_two_parts(ending, tmp_path):
    (tmp_path / f"mine.v2{ending}").touch()
    assert card_path(tmp_path / f"mine.v2{ending}") == tmp_path / "mine.v2.card.json"
    (tmp_path / "mine.v2.card.json").write_text("{}")
    assert weights_files(str(tmp_path / f"mine.v2{ending}"))[-1] == tmp_path / "mine.v2.card.json"


def test_a_folder_is_named_by_all_of_its_name(tmp_path):
    (tmp_path / "mine.keras").mkdir()
    assert card_path(tmp_path / "mine.keras") == tmp_path / "mine.keras.card.json"


def encoder(path):
    config = EmbeddingsConfig(weights=str(path))
    return find_encoder(config.encoder, config.weights)(config, image_size=32, seed=0)


def test_what_the_card_says_it_was_trained_on_is_passed_on(weights):
    weights.with_suffix(".card.json").write_text('{"trained_on": "other films"}')
    assert encoder(weights).card()["trained_on"] == "other films"


def test_the_patients_it_was_trained_on_are_passed_on_for_the_contract(weights):
    assert "trained_on_patients" not in encoder(weights).card()
    weights.with_suffix(".card.json").write_text('{"trained_on_patients": ["00ff", "11ee"]}')
    assert encoder(weights).card()["trained_on_patients"] == ["00ff", "11ee"]


def test_without_a_card_that_is_said(weights):
    assert encoder(weights).card()["trained_on"] == "not stated by the weights file"


@pytest.mark.parametrize(("text", "message"), [("{", "is not valid JSON"), ("[]", "must hold a JSON object; got a list")])
def test_a_broken_card_is_named(weights, text, message):
    weights.with_suffix(".card.json").write_text(text)
    with pytest.raises(InputError, match=message):
        encoder(weights)
