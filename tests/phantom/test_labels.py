"""What the 14 labels say and how a report leaves them."""

import numpy as np

from biascxr.phantom.labels import LABELS, NO_FINDING, SUPPORT_DEVICES, as_reported, with_no_finding


def labels_with(*names: str) -> np.ndarray:
    return np.array([[label in names for label in LABELS]])


def test_labels_are_the_14_of_chexpert_in_alphabetical_order():
    assert len(LABELS) == 14
    assert list(LABELS) == sorted(LABELS)


def test_no_finding_stands_alone_or_beside_support_devices():
    assert with_no_finding(labels_with())[0, NO_FINDING]
    assert with_no_finding(labels_with("Support Devices"))[0, NO_FINDING]
    assert not with_no_finding(labels_with("Edema"))[0, NO_FINDING]
    assert not with_no_finding(labels_with("Edema", "Support Devices", "No Finding"))[0, NO_FINDING]


def test_no_finding_is_recorded_1_or_blank_and_never_beside_an_uncertain_disease():
    labels = with_no_finding(np.random.default_rng(0).random((2000, 14)) < 0.08)
    reported = as_reported(labels, np.random.default_rng(1), uncertain_share=0.5, blank_share=0.5)
    column = reported[:, NO_FINDING]
    assert set(column[~np.isnan(column)]) == {1.0}
    diseases = np.delete(reported, [NO_FINDING, SUPPORT_DEVICES], axis=1)
    assert not ((diseases == -1.0).any(axis=1) & (column == 1.0)).any()


def test_uncertain_and_blank_cells_come_in_their_shares():
    labels = with_no_finding(np.random.default_rng(0).random((20_000, 14)) < 0.3)
    reported = np.delete(
        as_reported(labels, np.random.default_rng(1), uncertain_share=0.2, blank_share=0.4), NO_FINDING, axis=1
    )
    true = np.delete(labels, NO_FINDING, axis=1)
    assert abs((reported[true] == -1.0).mean() - 0.20) < 0.01
    assert abs((reported[~true] == -1.0).mean() - 0.02) < 0.005
    assert abs(np.isnan(reported[~true]).mean() - 0.40) < 0.01
    assert not np.isnan(reported[true]).any()


def test_without_uncertain_and_blank_cells_the_report_is_the_truth():
    labels = with_no_finding(np.random.default_rng(0).random((500, 14)) < 0.2)
    reported = as_reported(labels, np.random.default_rng(1), uncertain_share=0.0, blank_share=0.0)
    np.testing.assert_array_equal(reported == 1.0, labels)
