"""How many images a second does DenseNet121 embed on this processor: ONNX Runtime, Keras, PyTorch?

    python benchmarks/embedding_speed.py             # 256x256, grey: ten minutes on two cores
    python benchmarks/embedding_speed.py --quick     # fewer turns: four minutes

Three ways to the same 1024 numbers: what a run takes (`--runtime auto`: the network exported from Keras, each transition's
pooling moved before its convolution, run by ONNX Runtime with batch 1, one single-threaded process for each core); Keras's
`predict` at its best batch size, chosen before the race; PyTorch's torchvision network, eager, channels last, likewise.
Each is in its own process (ONNX Runtime in as many as there are cores) and takes turns with the others, so that a busy
machine is busy for all. Reading and decoding of images is not in it: all embed the same films from memory. That their
vectors agree is checked.

The goal: at least 1.8 times Keras and 2.5 times PyTorch.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from training_turns import is_installed, machine

import biascxr

SIZE = 256
GOALS = {"keras": 1.8, "torch": 2.5}
BATCHES = {"keras": (1, 2, 4, 8, 16), "torch": (1, 2, 4, 8)}
TITLES = {"graph": "biascxr, ONNX Runtime", "keras": "Keras, predict", "torch": "PyTorch, eager, channels last"}
CHECKED = 8


def films(n: int) -> np.ndarray:
    """Returns made-up films `[n, 256, 256] uint8`: smoothed noise, each another."""
    import cv2

    rng = np.random.default_rng(0)
    noise = rng.normal(size=(n, SIZE, SIZE)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(film, (0, 0), 3.0) for film in noise])
    return np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8)


def write_network(folder: Path) -> None:
    """Writes one random network: PyTorch's tensors where PyTorch is installed, and its Keras twin and graph.

    Scales, shifts and statistics of its normalisations are drawn too. As they are initialised, exporters and runtimes would
    leave out half of what a trained network computes there.
    """
    from biascxr.config import EmbeddingsConfig
    from biascxr.embeddings import find_encoder
    from biascxr.embeddings.graph_encoder import write_graph

    weights = "random"
    if is_installed("torch"):
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(0)
        model = torch_network()
        save_file(model.state_dict(), folder / "network.safetensors")
        weights = str(folder / "network.safetensors")
    source = "auto" if weights == "random" else "unit_range"
    config = EmbeddingsConfig(weights=weights, weights_source=source, pooling="avg")
    encoder = find_encoder(config.encoder, config.weights)(config, image_size=SIZE, seed=0)
    if weights == "random":
        import keras

        rng = np.random.default_rng(0)
        for layer in encoder.model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.set_weights([draw(rng, layer.gamma.shape) for draw in (some_scale, some_shift, some_shift, some_scale)])
    encoder.model.save(folder / "network.keras")
    write_graph(encoder, folder / "network.onnx", encoder.card())


def torch_network():
    """torchvision's DenseNet121 for one channel: weights by He's rule, normalisations drawn."""
    import torch
    import torchvision

    model = torchvision.models.densenet121(num_classes=14)
    model.features.conv0 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    torch.nn.init.kaiming_normal_(model.features.conv0.weight)
    rng = np.random.default_rng(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            tensors = (module.weight, module.bias, module.running_mean, module.running_var)
            for tensor, draw in zip(tensors, (some_scale, some_shift, some_shift, some_scale), strict=True):
                tensor.data.copy_(torch.from_numpy(draw(rng, tuple(tensor.shape))))
    return model.eval()


def some_scale(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)


def some_shift(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(0, 0.3, shape).astype(np.float32)


# In the process of a racer ------------------------------------------------------------------------------------------------


def embedder(kind: str, folder: Path, batch: int):
    """Returns a function `[n, 256, 256] uint8 -> [n, 1024]`."""
    if kind == "graph":
        from biascxr.embeddings.graph_encoder import GraphEncoder

        graph = GraphEncoder(folder / "network.onnx")
        return lambda images: np.concatenate([graph.encode(images[i : i + 1]) for i in range(len(images))])
    if kind == "keras":
        import keras

        model = keras.models.load_model(folder / "network.keras", compile=False)
        return lambda images: model.predict(images[..., None].astype(np.float32) / 255, batch_size=batch, verbose=0)
    import torch
    from safetensors.torch import load_file

    model = torch_network()
    model.load_state_dict(load_file(folder / "network.safetensors"))
    model = model.to(memory_format=torch.channels_last)

    def run(images: np.ndarray) -> np.ndarray:
        parts = []
        with torch.inference_mode():
            for start in range(0, len(images), batch):
                given = torch.from_numpy(images[start : start + batch, None].astype(np.float32) / 255)
                maps = model.features(given.to(memory_format=torch.channels_last))
                parts.append(torch.relu(maps).mean((2, 3)).numpy())
        return np.concatenate(parts)

    return run


def run_racer(kind: str, folder: Path, batch: int, first: int, last: int) -> None:
    """Embeds films first to last whenever a line comes, and answers with the seconds it took."""
    images = np.load(folder / "films.npy")[first:last]
    embed = embedder(kind, folder, batch)
    vectors = embed(images)  # the first pass traces and warms up
    np.save(folder / f"{kind}-{first}.npy", vectors[:CHECKED])
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        embed(images)
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)


# In the process that holds the race ---------------------------------------------------------------------------------------


class Team:
    """The processes of one way: all take their turn together."""

    def __init__(self, kind: str, folder: Path, batch: int, n_images: int, n_processes: int) -> None:
        self.kind, self.batch, self.n_images, self.turns = kind, batch, n_images, []
        parts = np.linspace(0, n_images, n_processes + 1).astype(int)
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        self._processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--racer", kind, str(folder), str(batch), str(first), str(last)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
            )
            for first, last in pairwise(parts)
        ]  # fmt: skip
        for process in self._processes:
            if process.stdout.readline().strip() != "ready":
                raise SystemExit(f"FAILED: {kind}\n{process.communicate()[1]}")

    def take_turn(self) -> None:
        start = time.perf_counter()
        for process in self._processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [json.loads(process.stdout.readline()) for process in self._processes]
        self.turns.append((time.perf_counter() - start, sum(cpu for _, cpu in told)))

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    @property
    def images_per_second(self) -> float:
        """Of its fastest turn."""
        return self.n_images / min(seconds for seconds, _ in self.turns)

    @property
    def images_per_cpu_second(self) -> float:
        """Of its cheapest turn, all cores together."""
        return self.n_images / min(cpu for _, cpu in self.turns)


def best_batch(kind: str, folder: Path, n_images: int) -> int:
    """Returns the batch size at which a way is fastest: the best of two turns each."""
    speeds = {}
    for batch in BATCHES[kind]:
        team = Team(kind, folder, batch, n_images, 1)
        team.take_turn()
        team.take_turn()
        team.close()
        speeds[batch] = team.images_per_second
    return max(speeds, key=speeds.get)


def main() -> None:
    if sys.argv[1:2] == ["--racer"]:
        kind, folder, *numbers = sys.argv[2:]
        run_racer(kind, Path(folder), *map(int, numbers))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--images", type=int, default=48, help="a turn")
    parser.add_argument("--turns", type=int)
    flags = parser.parse_args()
    n_turns = flags.turns or (3 if flags.quick else 8)
    if flags.images < CHECKED or n_turns < 1:
        parser.error(f"--images must be at least {CHECKED} and --turns at least 1")
    if not is_installed("onnxruntime") or not is_installed("tf2onnx"):
        raise SystemExit('ONNX Runtime or the exporter is not installed: pip install "biascxr[onnx]"')
    kinds = ["graph", "keras", *(["torch"] if is_installed("torch") and is_installed("torchvision") else [])]
    names = ("keras", "tensorflow", "onnxruntime", *(["torch", "torchvision"] if "torch" in kinds else []))
    print(
        "python",
        platform.python_version(),
        "biascxr",
        biascxr.__version__,
        *(f"{n} {importlib.metadata.version(n)}" for n in names),
    )
    if "torch" not in kinds:
        print("torch and torchvision are not installed; compared with Keras alone")
    print(machine())
    n_cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "films.npy", films(flags.images))
        # A process of its own: the libraries that write the network shall not be in the one that holds the race.
        subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
                        f"from pathlib import Path; from embedding_speed import write_network; write_network(Path({name!r}))"],
                       check=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, stderr=subprocess.DEVNULL)  # fmt: skip
        teams = [Team("graph", folder, 1, flags.images, n_cores)]
        teams += [Team(kind, folder, best_batch(kind, folder, flags.images // 2), flags.images, 1) for kind in kinds[1:]]
        for _ in range(n_turns):
            for team in teams:
                team.take_turn()
        for team in teams:
            team.close()
        expected = np.load(folder / "keras-0.npy")
        differences = {
            kind: float(np.abs(np.load(folder / f"{kind}-0.npy") - expected).max() / np.abs(expected).max()) for kind in kinds
        }
    print(f"\nDenseNet121, {flags.images} grey films of {SIZE}x{SIZE} a turn, {n_turns} turns, {n_cores} cores")
    print(f"{'':32}{'batch':>7}{'images/s':>10}{'images per CPU s':>18}{'largest difference':>20}")
    for team in teams:
        print(f"{TITLES[team.kind]:32}{team.batch:7}{team.images_per_second:10.1f}{team.images_per_cpu_second:18.1f}"
              f"{differences[team.kind]:20.1e}")  # fmt: skip
    for team in teams[1:]:
        ratio, goal = teams[0].images_per_second / team.images_per_second, GOALS[team.kind]
        print(f"{ratio:.2f} times {TITLES[team.kind]} (goal {goal}): {'reached' if ratio >= goal else 'NOT reached'}")
    if max(differences.values()) > 1e-4:
        raise SystemExit("the vectors differ")


if __name__ == "__main__":
    main()
