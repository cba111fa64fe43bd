"""PyTorch's files: tensors are read wherever a checkpoint keeps them; Python objects are not unpickled."""

import builtins
import re

import numpy as np
import pytest

from biascxr.embeddings.torch_file import read_state_dict
from biascxr.errors import InputError

torch = pytest.importorskip("torch")


@pytest.fixture
def module():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))


def check(path, module):
    read = read_state_dict(path)
    assert read.keys() == module.state_dict().keys()
    for name, values in module.state_dict().items():
        np.testing.assert_array_equal(read[name], values.numpy())
        assert read[name].dtype == (np.float32 if values.is_floating_point() else np.int64)


class TestAStateDict:
    @pytest.mark.parametrize("nest", [(), ("state_dict",), ("model",), ("model_state_dict",), ("model", "state_dict")])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_is_found_where_checkpoints_keep_it(self, tmp_path, module, nest, zipped):
        saved = module.state_dict()
        for name in reversed(nest):
            saved = {"epoch": 3, "arch": "densenet", name: saved, "optimizer": {"lr": 0.1}}
        torch.save(saved, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        check(tmp_path / "a.pth", module)

    def test_in_safetensors_needs_no_pytorch(self, tmp_path, module, monkeypatch):
        pytest.importorskip("safetensors.torch").save_file(module.state_dict(), tmp_path / "a.safetensors")
        self.without_pytorch(monkeypatch)
        check(tmp_path / "a.safetensors", module)

    def test_of_half_precision_comes_as_float32(self, tmp_path):
        values = torch.randn(3).to(torch.bfloat16)
        torch.save({"a": values, "b": values.half(), "c": values.double()}, tmp_path / "a.pt")
        read = read_state_dict(tmp_path / "a.pt")
        assert {v.dtype for v in read.values()} == {np.dtype(np.float32)}
        np.testing.assert_array_equal(read["a"], values.float().numpy())

    def test_without_pytorch_says_what_to_install(self, tmp_path, module, monkeypatch):
        torch.save(module.state_dict(), tmp_path / "a.pth")
        self.without_pytorch(monkeypatch)
        with pytest.raises(InputError, match=r"pip install 'biascxr\[torch\]'.*\.safetensors"):
            read_state_dict(tmp_path / "a.pth")

    @pytest.mark.parametrize(("held", "said"), [({"weight_url": "x", "epoch": 1}, "a dict with 'weight_url', 'epoch'"),
                                                ([1, 2], "got list"), ({}, "got a dict with")])  # fmt: skip
    def test_that_is_not_there_is_named(self, tmp_path, held, said):
        torch.save(held, tmp_path / "a.pt")
        with pytest.raises(InputError, match=f"expected a state dict, bare or under one of 'state_dict'.*{said}"):
            read_state_dict(tmp_path / "a.pt")

    @staticmethod
    def without_pytorch(monkeypatch):
        real = builtins.__import__

        def fails(name, *args, **kwargs):
            if name == "torch":
                raise ImportError("No module named 'torch'")
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", fails)


class TestPythonObjects:
    @pytest.mark.parametrize("held", [lambda m: m, lambda m: {"model": m, "epoch": 3},
                                      lambda m: {"state_dict": m.state_dict(), "best": np.float64(3)}])  # fmt: skip
    @pytest.mark.parametrize("protocol", [2, 4])
    def test_are_refused_with_the_line_that_exports_their_tensors(self, tmp_path, module, held, protocol):
        path = tmp_path / "whole.v1.pt"
        torch.save(held(module), path, pickle_protocol=protocol)
        with pytest.raises(InputError, match=r"holds Python objects \((torch|numpy)[\w.]+\), not tensors only") as error:
            read_state_dict(path)
        line = re.search(r'python -c "(.*)"\n', str(error.value))[1]
        exported = re.search(r"--weights (\S+)$", str(error.value))[1]
        exec(line, {})  # what the user is told to run does what it says
        check(tmp_path / "whole_state_dict.pth", module)
        assert exported == str(tmp_path / "whole_state_dict.pth")

    def test_run_no_code(self, tmp_path):
        import pickle

        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "ran"), "w"))

        torch.save({"a": Evil()}, tmp_path / "a.pt", pickle_module=pickle)
        (tmp_path / "b.pt").write_bytes(pickle.dumps(Evil()))
        (tmp_path / "ran").unlink(missing_ok=True)
        for name in ("a.pt", "b.pt"):
            with pytest.raises(InputError):
                read_state_dict(tmp_path / name)
        assert not (tmp_path / "ran").exists()


def test_a_file_that_is_not_whole_is_named(tmp_path, module):
    path = tmp_path / "a.pt"
    torch.save(module.state_dict(), path)
    data = path.read_bytes()
    for content in (b"", b"hello there", data[: len(data) // 2], b"\0" * 100, b"PK\x03\x04" + b"x" * 50):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"--weights .*a\.pt is not a whole PyTorch file \(\w+"):
            read_state_dict(path)
