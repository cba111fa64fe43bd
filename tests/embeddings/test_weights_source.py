"""How pixels go in is part of what an encoder is: with another `weights_source` it is another one."""

import pytest

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings import densenet, find_encoder

keras = pytest.importorskip("keras")

SIZE = 224  # that of all sources: their fingerprints do not differ by it


def saved_weights(model, folder):
    model.save_weights(folder / "m.weights.h5")
    return folder / "m.weights.h5"


def saved_whole(model, folder):
    model.save(folder / "m.keras")
    return folder / "m.keras"


def exported(model, folder):
    model.export(folder / "m", verbose=False)
    return folder / "m"


def onnx_file(model, folder):
    """An average over the image: exporting the model would take as long as all else here."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    shape = ["n", SIZE, SIZE, model.input_shape[-1]]
    image, vector = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", shape), ("v", None)))
    nodes = [onnx.helper.make_node("ReduceMean", ["x"], ["v"], axes=[1, 2], keepdims=0)]
    graph = onnx.helper.make_graph(nodes, "g", [image], [vector])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    return folder / "m.onnx"


WRITERS = {"densenet121": saved_weights, "keras_file": saved_whole, "saved_model": exported, "onnx": onnx_file}


@pytest.mark.parametrize(
    ("channels", "default", "others"),
    [(1, "unit_range", ("torchxrayvision",)), (3, "imagenet", ("unit_range", "torchvision", "chexnet"))],
)
@pytest.mark.parametrize("name", WRITERS)
def test_a_changed_source_changes_the_fingerprint_and_saying_what_auto_finds_does_not(
    name, channels, default, others, stand_in, tmp_path, monkeypatch
):
    monkeypatch.setattr(densenet, "_network", lambda name, shape, pooling, weights=None: stand_in(shape[-1], pooling, shape[0]))
    weights = str(WRITERS[name](stand_in(channels, size=SIZE), tmp_path))

    def fingerprint(source):
        config = EmbeddingsConfig(encoder=name, weights=weights, weights_source=source, inference_batch=2)
        return find_encoder(name, weights)(config, image_size=SIZE, seed=0).card()["fingerprint"]

    assert fingerprint("auto") == fingerprint(default)
    assert len({fingerprint(source) for source in (default, *others)}) == 1 + len(others)
