"""A Keras encoder on several devices: each computes its part of a batch, and the vectors are those of one device."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings import find_encoder

keras = pytest.importorskip("keras")

TWO_DEVICES = """
    import sys
    import numpy as np
    import tensorflow as tf

    processor = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor[0], [tf.config.LogicalDeviceConfiguration()] * 2)

    from biascxr.config import EmbeddingsConfig
    from biascxr.embeddings.shards import EncoderSpec
    from biascxr.errors import InputError

    weights = sys.argv[1]
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32)).astype(np.uint8)

    def encoder_of(batch, **given):
        return EncoderSpec(EmbeddingsConfig(weights=weights, inference_batch=batch, **given), 32, 0).build()

    both = encoder_of(6, distribute="mirrored")
    step, seen = both.model.predict_step, []

    def watched(data):
        replica = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
        seen.append((int(replica), tuple(data[0].shape)))
        return step(data)

    both.model.predict_step = watched
    vectors = both.encode(images)
    assert sorted(seen) == [(0, (3, 32, 32, 1)), (1, (3, 32, 32, 1))], seen  # traced once on each device, with its half

    whole, half = encoder_of(6), encoder_of(3)
    assert vectors.shape == (6, both.vector_length) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, whole.encode(images), rtol=1e-5, atol=1e-6)
    by_halves = np.concatenate([half.encode(images[:3]), half.encode(images[3:])])
    np.testing.assert_allclose(vectors, by_halves, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(both.encode(images), vectors)
    np.testing.assert_allclose(both.encode(images[::-1].copy()), vectors[::-1], rtol=1e-6, atol=1e-7)

    cards = [encoder.card() for encoder in (both, whole, half)]
    assert len({card["fingerprint"] for card in cards}) == 3 and len({card["network"] for card in cards}) == 1
    assert [card["distribute"] for card in cards] == ["mirrored over 2 devices", "off", "off"]
    assert encoder_of(6, distribute="mirrored").card() == cards[0]

    mixed = encoder_of(6, distribute="mirrored", mixed_precision="bfloat16")
    found = mixed.encode(images)
    assert (found != vectors).any() and np.abs(found - vectors).max() < 0.02 * np.abs(vectors).max()
    assert mixed.card()["fingerprint"] not in {card["fingerprint"] for card in cards}

    try:
        encoder_of(5, distribute="mirrored")
    except InputError as error:
        print(error)
"""


def test_two_devices_divide_a_batch_and_give_what_one_gives(stand_in, tmp_path):
    stand_in().save(tmp_path / "network.keras")
    command = [sys.executable, "-c", textwrap.dedent(TWO_DEVICES), str(tmp_path / "network.keras")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "--inference_batch must be a multiple of the 2 devices of --distribute mirrored" in done.stdout
    assert "got 5. The nearest is 4;" in done.stdout


def test_one_device_gives_the_same_bytes_and_says_that_it_was_alone(stand_in, tmp_path, images):
    stand_in().save(tmp_path / "network.keras")
    made = {}
    for distribute in ("off", "mirrored"):
        config = EmbeddingsConfig(weights=str(tmp_path / "network.keras"), distribute=distribute)
        made[distribute] = find_encoder(config.encoder, config.weights)(config, image_size=32, seed=0)
    np.testing.assert_array_equal(made["mirrored"].encode(images), made["off"].encode(images))
    assert made["mirrored"].card()["distribute"] == "mirrored over 1 device"
    assert made["mirrored"].card()["fingerprint"] != made["off"].card()["fingerprint"]
