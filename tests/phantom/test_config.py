"""A configuration that cannot be made is refused with what was expected and what was received."""

import pytest

from biascxr.phantom import FINDINGS, FORMS, MECHANISMS, PhantomConfig


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


@pytest.mark.parametrize(
    ("settings", "nearest", "known"),
    [
        ({"mechanism": "presentatoin"}, "presentation", MECHANISMS),
        ({"form": "genric"}, "generic", FORMS),
        ({"marked_finding": "pneumothorax"}, "Pneumothorax", FINDINGS),
    ],
)
def test_an_unknown_name_lists_the_known_and_the_nearest(settings, nearest, known):
    with pytest.raises(ValueError, match=f"Did you mean '{nearest}'") as error:
        PhantomConfig(**settings)
    for name in known:
        assert name in str(error.value)


def test_no_finding_cannot_be_marked():
    # It is the absence of the others: a marker that goes with it would go with nothing that is drawn.
    with pytest.raises(ValueError, match="Unknown marked finding 'No Finding'"):
        PhantomConfig(marked_finding="No Finding")


@pytest.mark.parametrize(
    ("setting", "names"),
    [("mechanism", MECHANISMS), ("form", FORMS), ("marked_finding", FINDINGS)],
    ids=lambda value: str(value)[:9],
)
def test_every_name_in_the_table_is_accepted(setting, names):
    for name in names:
        assert getattr(PhantomConfig(**{setting: name}), setting) == name
