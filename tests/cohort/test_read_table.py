"""Tables on disk: what can be read is read the same, and what cannot is named."""

import gzip

import pandas as pd
import pytest

from biascxr.cohort import read_table
from biascxr.errors import InputError


def write(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


def test_every_cell_is_text_as_written(tmp_path):
    frame = read_table(write(tmp_path, "a.csv", b"id,age\n007,\n0080,NA\n"))
    assert frame.to_dict("list") == {"id": ["007", "0080"], "age": ["", "NA"]}


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfa,b\n1,2\n3,4\n5,6\n",
        b"a,b\r\n1,2\r\n3,4\r\n5,6\r\n",
        b"a,b\r\n1,2\n3,4\r5,6",
        b'"a","b"\n"1","2"\n\n3,4\n5,6\n\n',
    ],
    ids=["byte order mark", "windows endings", "mixed endings and none at the end", "quotes and blank lines"],
)
def test_the_same_table_in_another_dress_is_the_same_table(tmp_path, data):
    plain = read_table(write(tmp_path, "plain.csv", b"a,b\n1,2\n3,4\n5,6\n"))
    pd.testing.assert_frame_equal(read_table(write(tmp_path, "dressed.csv", data)), plain)


def test_gzip_is_read_as_the_plain_table(tmp_path):
    data = b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(1000))
    plain, packed = write(tmp_path, "a.csv", data), write(tmp_path, "a.csv.gz", gzip.compress(data))
    pd.testing.assert_frame_equal(read_table(packed), read_table(plain))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.csv", b""),
        ("blank.csv", b"\n\n"),
        ("truncated.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 5000, mtime=0)[:-20]),
        ("damaged.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)[:10] + b"\xff" * 40),
        ("not_gzip.csv.gz", b"a,b\n1,2\n"),
        ("gzip_named.csv", gzip.compress(b"a,b\n1,2\n", mtime=0)),
        ("latin1.csv", "a,b\né,2\n".encode("latin-1")),
        ("open_quote.csv", b'a,b\n"1,2\n3,4\n'),
        ("ragged.csv", b"a,b\n1,2\n3,4,5\n"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_a_table_is_named(tmp_path, name, data):
    with pytest.raises(InputError, match=rf"{name} cannot be read as a CSV table: .+"):
        read_table(write(tmp_path, name, data))


def test_a_missing_table_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"meta\.csv: no such file"):
        read_table(tmp_path / "meta.csv")
    with pytest.raises(InputError, match="cannot be read as a CSV table"):
        read_table(tmp_path)


def test_a_header_without_rows_is_an_error(tmp_path):
    with pytest.raises(InputError, match="has a header and no rows"):
        read_table(write(tmp_path, "a.csv", b"subject_id,study_id,dicom_id,path\n"))


@pytest.mark.parametrize("row", [b"1,2,3,4\n", b"1,2,3,\n"])
def test_rows_longer_than_the_header_never_shift_the_columns(tmp_path, row):
    with pytest.raises(InputError, match=r"more cells than its header has names \(4 against 3\)"):
        read_table(write(tmp_path, "a.csv", b"a,b,c\n" + row * 3))


def test_a_row_that_is_cut_off_is_an_error(tmp_path):
    """A blank label is read as a negative: half a row must not make one."""
    with pytest.raises(
        InputError, match=r"1 rows have fewer cells than the header, the first in data row 2\. Was the file cut"
    ):
        read_table(write(tmp_path, "a.csv", b"a,b,c\n4,5,\n1,2\n4,5,6\n"))


def test_a_column_that_is_there_twice_is_an_error(tmp_path):
    with pytest.raises(InputError, match="has the column 'b' twice"):
        read_table(write(tmp_path, "a.csv", b"a,b,b\n4,5,6\n"))


@pytest.mark.parametrize("name", ["a.zip", "a.xz", "a.bz2", "a.tar", "a.tar.gz", "a.zst"])
def test_what_is_packed_otherwise_and_broken_is_named(tmp_path, name):
    with pytest.raises(InputError, match=rf"{name} cannot be read as a CSV table"):
        read_table(write(tmp_path, name, b"a,b\n1,2\n"))
