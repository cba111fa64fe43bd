"""Files in the safetensors format: what its own library writes is read; what is not whole is refused with its reason."""

import json
import struct

import numpy as np
import pytest

from biascxr.embeddings.safetensors_file import read_safetensors
from biascxr.errors import InputError


def write(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape=(2,), begin=0, end=8, kind="F32"):
    return {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}


TWO = np.array([1.5, -2.0], "<f4").tobytes()


class TestWhatTheLibraryWrites:
    def test_every_numpy_type_and_shape(self, tmp_path):
        library = pytest.importorskip("safetensors.numpy")
        rng = np.random.default_rng(0)
        tensors = {
            f"{np.dtype(kind)}.{i}": np.asarray(rng.normal(size=shape) * 50).astype(kind)
            for kind in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "u2", "u4", "u8", "?")
            for i, shape in enumerate([(1,), (0, 3), (4,), (2, 3, 1, 5)])
        }
        library.save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "np"})
        read = read_safetensors(tmp_path / "a.safetensors")
        assert read.keys() == tensors.keys()
        for name, values in tensors.items():
            assert read[name].dtype == values.dtype
            np.testing.assert_array_equal(read[name], values)

    def test_bfloat16_of_pytorch_as_float32(self, tmp_path):
        torch, library = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
        values = torch.randn(3, 5).to(torch.bfloat16)
        library.save_file({"a": values}, tmp_path / "a.safetensors")
        read = read_safetensors(tmp_path / "a.safetensors")["a"]
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, values.float().numpy())


class TestAFileThatIsNotWhole:
    @pytest.mark.parametrize(
        ("header", "data", "reason"),
        [
            ({"a": entry()}, TWO[:-1], "cut off inside tensor 'a'"),
            ({"a": entry()}, TWO + b"x", "1 bytes after the last tensor"),
            ({"a": entry(begin=4, end=12)}, TWO + b"abcd", "tensor 'a' begins at byte 4 of the data; expected 0"),
            ({"a": entry(), "b": entry(begin=4, end=12)}, TWO + b"abcd", "tensor 'b' begins at byte 4 of the data; expected 8"),
            ({"a": entry(shape=(3,))}, TWO, r"tensor 'a' has shape \[3\] of F32 and bytes 0 to 8, which disagree"),
            ({"a": entry(shape=(-2,))}, TWO, "which disagree"),
            ({"a": entry(end=8.0)}, TWO, "which disagree"),
            ({"a": entry(kind="F8_E4M3")}, TWO, "has type 'F8_E4M3'; known are F64, F32"),
            ({"a": [1, 2]}, TWO, "no dtype, shape and data_offsets"),
            (b'{"a": 1', TWO, "its header is not JSON"),
            (b"[1, 2]", TWO, "its header is not a JSON object"),
            (b'{"a": 1, "a": 2}', TWO, "a name stands in it twice"),
            (b"\xff\xfe", TWO, "its header is not JSON"),
            (b"[" * 200_000, TWO, "its header is not JSON"),
        ],
    )
    def test_is_refused_with_its_reason(self, tmp_path, header, data, reason):
        with pytest.raises(InputError, match=f"is not a whole .safetensors file: .*{reason}"):
            read_safetensors(write(tmp_path / "a.safetensors", header, data))

    def test_at_any_length(self, tmp_path):
        path = write(tmp_path / "a.safetensors", {"a": entry()}, TWO)
        data = path.read_bytes()
        np.testing.assert_array_equal(read_safetensors(path)["a"], [1.5, -2.0])
        for length in range(len(data)):
            path.write_bytes(data[:length])
            with pytest.raises(InputError, match="is not a whole"):
                read_safetensors(path)

    def test_a_header_longer_than_the_file_allocates_nothing(self, tmp_path):
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
        with pytest.raises(InputError, match="a header of 1152921504606846976 bytes in a file of 10"):
            read_safetensors(tmp_path / "a.safetensors")
