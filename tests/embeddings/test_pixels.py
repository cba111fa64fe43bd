"""How a network gets its pixels: Pillow, PyTorch and Keras agree with the sizes and ranges made here."""

import numpy as np
import pytest
from PIL import Image

from biascxr.embeddings.pixels import SOURCES, resize, source_for
from biascxr.errors import InputError


class TestResize:
    @pytest.mark.parametrize(("before", "after"), [(256, 224), (224, 256), (1024, 224), (37, 32), (32, 64)])
    def test_is_pillows_bilinear(self, make_image, before, after):
        images = np.stack([make_image(seed, (before, before)) for seed in range(2)]).astype(np.float32)
        pillow = [np.asarray(Image.fromarray(image).resize((after, after), Image.Resampling.BILINEAR)) for image in images]
        np.testing.assert_allclose(resize(images, after), pillow, atol=1e-3)

    def test_is_pytorchs_antialiased_bilinear_as_torchxrayvision_calls_it(self, make_image):
        torch = pytest.importorskip("torch")
        images = make_image(0, (256, 256)).astype(np.float32)[None]
        expected = torch.nn.functional.interpolate(torch.tensor(images[None]), size=(224, 224), mode="bilinear", antialias=True)
        np.testing.assert_allclose(resize(images, 224), expected.numpy()[0], atol=1e-3)

    def test_of_the_same_size_changes_no_bit_and_a_flat_image_stays_flat(self, make_image):
        image = make_image(0, (64, 64)).astype(np.float32)[None]
        np.testing.assert_array_equal(resize(image, 64), image)
        np.testing.assert_allclose(resize(np.full((1, 256, 256), 77, np.float32), 224), 77, rtol=1e-6)


class TestRange:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)

    def test_of_torchxrayvision_is_its_normalize(self):
        x = self.levels.astype(np.float32)
        expected = (2 * (x / 255) - 1.0) * 1024  # torchxrayvision/utils.py
        np.testing.assert_allclose(SOURCES["torchxrayvision"].to_input(self.levels, channels=1)[..., 0], expected, atol=1e-3)

    def test_of_three_channels_is_keras_preprocess_input(self):
        keras = pytest.importorskip("keras")
        three = np.repeat(self.levels[..., None].astype(np.float32), 3, axis=-1)
        expected = keras.applications.densenet.preprocess_input(three)
        for name in ("imagenet", "torchvision", "chexnet"):
            np.testing.assert_array_equal(SOURCES[name].to_input(self.levels, channels=3), expected)

    def test_of_one_channel_is_zero_to_one(self):
        batch = SOURCES["unit_range"].to_input(self.levels, channels=1)
        assert (batch.min(), batch.max(), batch.shape, batch.dtype) == (0, 1, (1, 16, 16, 1), np.float32)

    def test_comes_after_the_size_of_the_source(self, make_image):
        images = make_image(0, (256, 256))[None]
        source = SOURCES["torchxrayvision"]
        batch = source.to_input(images, channels=1, size=source.size)
        assert batch.shape == (1, 224, 224, 1)
        assert -1024 <= batch.min() < -500 < 500 < batch.max() <= 1024


class TestSourceFor:
    @pytest.mark.parametrize(("channels", "name"), [(1, "unit_range"), (3, "imagenet")])
    def test_channels_decide_where_nothing_is_named(self, channels, name):
        assert source_for("auto", channels, weights="a").name == name

    def test_a_named_one_is_taken(self):
        assert source_for("unit_range", 3, weights="a").name == "unit_range"

    @pytest.mark.parametrize(
        ("name", "channels", "others"),
        [
            ("chexnet", 1, "unit_range, torchxrayvision"),
            ("torchxrayvision", 3, "imagenet, unit_range, torchvision, chexnet"),
        ],
    )
    def test_of_other_channels_is_refused(self, name, channels, others):
        with pytest.raises(
            InputError, match=rf"--weights_source {name} is for .* in a\.pth takes {channels}.*auto, {others}\."
        ):
            source_for(name, channels, weights="a.pth")

    def test_the_setting_offers_every_source(self):
        from typing import get_args, get_type_hints

        from biascxr.config import EmbeddingsConfig

        assert set(get_args(get_type_hints(EmbeddingsConfig)["weights_source"])) == {"auto", *SOURCES}
