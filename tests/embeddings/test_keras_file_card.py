"""The card beside a `.keras` encoder: what it says is passed on, and a broken one is named."""

from __future__ import annotations

import keras
import pytest

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings import find_encoder
from biascxr.errors import InputError


@pytest.fixture
def weights(tmp_path):
    inputs = keras.Input((32, 32, 1))
    path = tmp_path / "small.keras"
    keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)).save(path)
    return path


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
