"""A configuration that cannot be made is refused with what was expected and what was received."""

import pytest

from biascxr.phantom import MECHANISMS, PhantomConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_patients": 0}, "`n_patients` must be an integer from 1 to .* Received: 0"),
        ({"seed": -1}, "`seed` must be an integer from 0 .* Received: -1"),
        ({"seed": 1.5}, r"`seed` must be an integer .* Received: 1\.5"),
        ({"image_size": 8}, "`image_size` must be an integer from 64 .* Received: 8"),
        ({"disadvantaged_group": 4}, "`disadvantaged_group` must be an integer from 0 to 3. Received: 4"),
        ({"strength": 1.2}, r"`strength` must be a fraction from 0 to 1. Received: 1\.2"),
        ({"separability": float("nan")}, "`separability` must be a fraction from 0 to 1. Received: nan"),
        ({"blank_share": "half"}, "`blank_share` must be a fraction from 0 to 1. Received: 'half'"),
    ],
)
def test_a_bad_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        PhantomConfig(**settings)


def test_an_unknown_mechanism_lists_the_known_and_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'presentation'") as error:
        PhantomConfig(mechanism="presentatoin")
    for name in MECHANISMS:
        assert name in str(error.value)


def test_every_mechanism_in_the_table_is_accepted():
    for name in MECHANISMS:
        assert PhantomConfig(mechanism=name).mechanism == name
