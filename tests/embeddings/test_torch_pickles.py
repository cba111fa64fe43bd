"""PyTorch files in a pickle protocol that PyTorch reads only with the code in it: told by name. PyTorch is not needed here."""

import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from fractions import Fraction

import pytest

from biascxr.embeddings.torch_file import read_state_dict
from biascxr.errors import InputError

# What PyTorch 2.6 and later say of any operation that protocol 2 does not have; 149 is FRAME, the first of protocol 4.
SAID = (
    "Weights only load failed. In PyTorch 2.6, we changed the default value of the `weights_only` argument in `torch.load` "
    "from `False` to `True`.\nPlease file an issue with the following so that we can make `weights_only=True` compatible with "
    "your use case: WeightsUnpickler error: Unsupported operand 149\n"
)


class FloatStorage:
    pass


def _rebuild_tensor_v2():
    pass


class Tensor:
    """Pickled as a tensor is: by the name of a function of PyTorch's."""

    def __reduce__(self):
        return _rebuild_tensor_v2, ((FloatStorage, "0", "cpu", 4), 0, (2, 2), (2, 1), False, OrderedDict())


@pytest.fixture(autouse=True)
def fake_torch(monkeypatch):
    """In the place of PyTorch: the names that are pickled, and a reader that reads nothing."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def load(*_, **__):
        raise pickle.UnpicklingError(SAID)

    torch.__version__, torch.load, torch.serialization = "2.6.0", load, types.SimpleNamespace(pickle=pickle)
    for module, member in ((torch, FloatStorage), (utils, _rebuild_tensor_v2)):
        monkeypatch.setattr(member, "__module__", module.__name__)
        setattr(module, member.__name__, member)
        monkeypatch.setitem(sys.modules, module.__name__, module)


def write(path, held, *, protocol, zipped):
    """A file as `torch.save(held, path, pickle_protocol=protocol)` lays it out."""
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(held, protocol=protocol))
            archive.writestr("archive/data/0", bytes(16))
        return
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    with open(path, "wb") as file:
        for part in (*head, held, ["0"]):
            pickle.dump(part, file, protocol=protocol)
        file.write(b"\x04" + bytes(23))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [3, 4, 5])
class TestAnotherProtocol:
    def test_of_tensors_alone_is_said_with_the_line_that_writes_them_anew(self, tmp_path, protocol, zipped):
        path = tmp_path / "mine.pth"
        write(path, {"state_dict": OrderedDict(a=Tensor(), b=Tensor())}, protocol=protocol, zipped=zipped)
        with pytest.raises(InputError) as error:
            read_state_dict(path)
        text = str(error.value)
        assert f"{path} is written in pickle protocol {protocol}, which PyTorch opens only by running the code in it" in text
        assert 'python -c "import torch; m = torch.load(' in text
        assert text.endswith(f"--weights {tmp_path / 'mine_state_dict.pth'}")

    def test_of_something_else_names_what_it_is_though_pytorch_does_not(self, tmp_path, protocol, zipped):
        path = tmp_path / "mine.pth"
        held = {"epoch": Fraction(1, 3), "best": Fraction(1, 2), "state_dict": {"a": Tensor()}}
        write(path, held, protocol=protocol, zipped=zipped)
        with pytest.raises(InputError, match=r"mine\.pth holds Python objects \(fractions\.Fraction\), not tensors only"):
            read_state_dict(path)


CUT = pickle.dumps("a text", protocol=4)[:-2]


@pytest.mark.parametrize(
    "content",
    [b"", b"hello there", CUT, pickle.dumps({"a": 1}, protocol=2), b"PK\x03\x04" + b"x" * 50],
)
def test_what_is_no_such_file_is_said_to_be_not_whole(content, tmp_path):
    (tmp_path / "mine.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"mine\.pth is not a whole PyTorch file \(UnpicklingError"):
        read_state_dict(tmp_path / "mine.pth")


def test_the_names_are_read_and_nothing_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    for zipped in (True, False):
        write(tmp_path / "mine.pth", {"a": Evil()}, protocol=4, zipped=zipped)
        (tmp_path / "ran").unlink(missing_ok=True)
        with pytest.raises(InputError, match=r"holds Python objects \(_?io\.open\)"):
            read_state_dict(tmp_path / "mine.pth")
        assert not (tmp_path / "ran").exists()
