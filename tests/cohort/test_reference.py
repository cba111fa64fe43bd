"""Reference labels from a table of their own: joined by image or study, and refused where they do not fit."""

import numpy as np
import pandas as pd
import pytest

from biascxr.cohort.reference import read_reference_labels
from biascxr.errors import InputError

TABLE = pd.DataFrame({"image_id": ["a", "b", "c"], "study_id": ["1", "1", "2"]})
NAMES = ["Edema", "Lung Opacity"]


def read(tmp_path, text):
    path = tmp_path / "reference.csv"
    path.write_text(text)
    return read_reference_labels(path, TABLE, NAMES)


@pytest.mark.parametrize("key", ["image_id", "dicom_id", "Image Index"])
def test_by_image(tmp_path, key):
    made = read(tmp_path, f"{key},Edema,other\nb.dcm,1,x\nc.png,-1,y\na.jpg,0,x\nz,0,z\n")
    np.testing.assert_array_equal(made["Edema"], [0, 1, np.nan])
    assert list(made) == ["Edema"]


def test_by_study_every_image_of_it_gets_the_label(tmp_path):
    made = read(tmp_path, "study_id,lung_opacity,edema\n1,1,\n2,0,1\n")
    np.testing.assert_array_equal(made["Lung Opacity"], [1, 1, 0])
    np.testing.assert_array_equal(made["Edema"], [np.nan, np.nan, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient,Edema\n1,1\n", "needs a column image_id, dicom_id or study_id. Found: patient, Edema"),
        ("image_id,Oedema\na,1\n", "no column named as one of the findings: Edema, Lung Opacity"),
        ("image_id,Edema\na,1\na,0\n", "holds 1 image_id values twice"),
        ("image_id,Edema\nx,1\ny,0\n", "none of its 2 image_id values is in the table"),
        ("image_id,Edema\na,yes\n", "Label column 'Edema' holds 'yes'"),
        ("image_id,Edema\n", "has a header and no rows"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)
