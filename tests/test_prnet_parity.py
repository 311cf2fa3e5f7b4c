"""Parity with TensorFlow: the original graph, a real checkpoint of it, and what becomes of it here. Slow.

Runs in the environment that has TensorFlow: `python3 build.py test-prnet`. The graph is written anew from the layer table
in the design, so that a mistake in `resfcn256.py` does not cancel out; its variables have the names slim gave them.
"""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from prn_blender.prn.crop import Crop
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.image_io import load_image
from prn_blender.prn.resfcn256 import ResFcn256
from prn_blender.prn.weights import load_bundle

from prnet_data import write_uv_data

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
PHOTO = ROOT / "tests" / "data" / "astronaut.jpg"
TOLERANCE = 1e-4            # of the output's range


class Graph:
    """PRNet's graph with random weights and random batch-norm statistics, in TensorFlow's own terms.

    Built a first time with `training` it normalises by the batch, and `statistics` sets each layer's moving mean and variance
    near what the layer sees: with just any numbers the picture would be lost among constants on its way through 38 layers.
    Shifted so that most of each layer is above the ReLU's threshold: otherwise random layers blow up rounding errors.
    """

    def __init__(self, tf, seed: int, training: bool) -> None:
        self.tf, self.random, self.training = tf, np.random.default_rng(seed), training
        self.counts: dict[str, int] = {}
        self.statistics = []

    def scope(self, parent: str, name: str) -> str:
        number = self.counts.get(f"{parent}/{name}", 0)
        self.counts[f"{parent}/{name}"] = number + 1
        return f"{parent}/{name}_{number}" if number else f"{parent}/{name}"

    def variable(self, name: str, values: np.ndarray, trainable: bool = True):
        return self.tf.get_variable(name, initializer=values.astype(np.float32), trainable=trainable)

    def normed(self, x, scope: str):
        width, random = int(x.shape[-1]), self.random
        gamma = self.variable(f"{scope}/BatchNorm/gamma", random.uniform(0.6, 1.4, width))
        beta = self.variable(f"{scope}/BatchNorm/beta", random.normal(0 if width == 3 else 1, 0.3, width))
        mean = self.variable(f"{scope}/BatchNorm/moving_mean", np.zeros(width), trainable=False)
        variance = self.variable(f"{scope}/BatchNorm/moving_variance", np.ones(width), trainable=False)
        if self.training:
            centre, spread = self.tf.nn.moments(x, [0, 1, 2])
            self.statistics += [mean.assign(centre + self.tf.sqrt(spread) * random.normal(0, 0.1, width).astype(np.float32)),
                                variance.assign(spread * random.uniform(0.7, 1.4, width).astype(np.float32))]
            mean, variance = centre, spread
        return self.tf.nn.batch_normalization(x, mean, variance, beta, gamma, 0.001)

    def kernel(self, scope: str, size: int, inputs: int, outputs: int, stride: int = 1, transposed: bool = False):
        shape = (size, size, outputs, inputs) if transposed else (size, size, inputs, outputs)
        spread = np.sqrt(2 / (inputs * size * size / (stride * stride if transposed else 1)))
        return self.variable(f"{scope}/weights", self.random.normal(0, spread, shape))

    def convolution(self, x, scope: str, size: int, outputs: int, stride: int = 1):
        weights = self.kernel(scope, size, int(x.shape[-1]), outputs)
        return self.tf.nn.conv2d(x, weights, strides=[1, stride, stride, 1], padding="SAME")

    def block(self, x, outputs: int, stride: int):
        relu, scope = self.tf.nn.relu, self.scope("resfcn256", "resBlock")
        shortcut = x
        if stride != 1 or int(x.shape[-1]) != outputs:
            shortcut = self.convolution(x, f"{scope}/shortcut", 1, outputs, stride)
        y = relu(self.normed(self.convolution(x, f"{scope}/Conv", 1, outputs // 2), f"{scope}/Conv"))
        y = relu(self.normed(self.convolution(y, f"{scope}/Conv_1", 4, outputs // 2, stride), f"{scope}/Conv_1"))
        y = self.convolution(y, f"{scope}/Conv_2", 1, outputs)
        return relu(self.normed(y + shortcut, scope))

    def up(self, x, outputs: int, stride: int):
        tf, scope = self.tf, self.scope("resfcn256", "Conv2d_transpose")
        weights = self.kernel(scope, 4, int(x.shape[-1]), outputs, stride, transposed=True)
        side = int(x.shape[1]) * stride
        y = tf.nn.conv2d_transpose(x, weights, tf.stack([tf.shape(x)[0], side, side, outputs]), strides=[1, stride, stride, 1],
                                   padding="SAME")
        y.set_shape([None, side, side, outputs])
        return self.normed(y, scope)

    def build(self, x):
        relu = self.tf.nn.relu
        x = relu(self.normed(self.convolution(x, "resfcn256/Conv", 4, 16), "resfcn256/Conv"))
        for width in (32, 64, 128, 256, 512):
            x = self.block(self.block(x, width, 2), width, 1)
        x = relu(self.up(x, 512, 1))
        for width, more in ((256, 2), (128, 2), (64, 2), (32, 1), (16, 1)):
            x = relu(self.up(x, width, 2))
            for _ in range(more):
                x = relu(self.up(x, width, 1))
        for _ in range(2):
            x = relu(self.up(x, 3, 1))
        return self.tf.nn.sigmoid(self.up(x, 3, 1))


def crops() -> np.ndarray:
    """Real crops, near, far, and over the photo's edge; and noise."""
    image = load_image(PHOTO)
    squares = [Crop(225, 120, 200), Crop(220, 130, 320), Crop(330, 60, 260), Crop(225, 120, 90)]
    real = np.stack([square.cut(image, 256) for square in squares])
    noise = np.random.default_rng(1).random((3, 256, 256, 3), np.float32)
    noise[1] = cv2.GaussianBlur(noise[1], (0, 0), 6)
    noise[2] = 0
    return np.concatenate([real, real[:1, ::-1, ::-1], noise])


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow", reason="only where TensorFlow is: build.py test-prnet").compat.v1


@pytest.fixture(scope="module")
def original(tf, tmp_path_factory):
    """(prefix of a real V2 checkpoint with its optimiser's state, the crops, TensorFlow's output for them in 0..1)."""
    prefix = tmp_path_factory.mktemp("checkpoint") / "256_256_resfcn256_weight"
    with tf.Graph().as_default(), tf.Session() as session:
        image, images = tf.placeholder(tf.float32, [None, 256, 256, 3]), crops()
        training = Graph(tf, 7, training=True)
        with tf.variable_scope("", reuse=tf.AUTO_REUSE):
            tf.train.AdamOptimizer().minimize(tf.reduce_mean(training.build(image)))    # as the released one has been saved
            output = Graph(tf, 7, training=False).build(image)
        session.run(tf.global_variables_initializer())
        session.run(training.statistics, {image: images})
        tf.train.Saver(write_version=tf.train.SaverDef.V2).save(session, str(prefix), write_meta_graph=False)
        expected = np.concatenate([session.run(output, {image: images[i:i + 1]}) for i in range(len(images))])
    return prefix, images, expected


def convert(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-P", "-m", "training.convert_prnet", *map(str, arguments)], cwd=ROOT,
                          env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def uv_data(tmp_path_factory):
    return write_uv_data(tmp_path_factory.mktemp("data") / "uv-data")


@pytest.fixture(scope="module")
def bundle(original, uv_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "prnet"
    result = convert("--checkpoint", original[0], "--uv-data", uv_data, "-o", folder)
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert "research only" in result.stdout.lower()
    assert sorted(piece.name for piece in folder.iterdir()) == ["prn.onnx", "prn.safetensors", "topology.npz"]
    assert [piece.name for piece in folder.parent.iterdir()] == ["prnet"]
    return load_bundle(folder)


def as_sigmoids(maps: np.ndarray) -> np.ndarray:
    """Our crop units (N, 256, 256, 3) back to the graph's own 0..1."""
    return (maps * (1, 1, -1) - np.array([0.5 / 256 - 0.5, 0.5 / 256 - 0.5, 0])) / 1.1


def report(name: str, found: np.ndarray, expected: np.ndarray) -> float:
    worst = np.abs(found - expected).max((1, 2, 3))
    print(f"{name}: largest difference {worst.max():.1e} of the output's range (each crop: "
          + ", ".join(f"{value:.1e}" for value in worst) + ")")
    return worst.max()


def test_the_outputs_are_worth_comparing(original):
    expected = original[2]
    assert expected.shape == (8, 256, 256, 3) and expected.std() > 0.1
    assert min(expected[i].std() for i in range(8)) > 0.02
    assert np.abs(expected[0] - expected[1]).mean() > 0.01


def test_torch_gives_the_same(original, bundle):
    network = ResFcn256()
    state = {name: torch.from_numpy(values) for name, values in load_file(bundle.safetensors_path).items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    with torch.no_grad():
        maps, logits = network.eval()(torch.from_numpy(original[1]).permute(0, 3, 1, 2))
    assert logits is None
    assert report("torch", as_sigmoids(maps.permute(0, 2, 3, 1).numpy()), original[2]) <= TOLERANCE


def test_onnx_runtime_gives_the_same(original, bundle):
    maps, expression = OnnxEngine(bundle).run(original[1])
    assert expression is None
    assert report("ONNX Runtime", as_sigmoids(maps), original[2]) <= TOLERANCE


# ---- bad input: one sentence each, nothing written ---------------------------------------------------------------


def refused(tmp_path: Path, says: str, prefix, uv_data) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = convert("--checkpoint", prefix, "--uv-data", uv_data, "-o", tmp_path / "out")
    assert result.returncode == 2 and not result.stdout
    assert says in result.stderr and result.stderr.count("\n") == 1 and result.stderr.endswith(".\n"), result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def copied(original, folder: Path) -> Path:
    for piece in original[0].parent.glob(f"{original[0].name}.*"):
        (folder / piece.name).write_bytes(piece.read_bytes())
    return folder / original[0].name


def test_a_missing_shard(original, uv_data, tmp_path):
    prefix = copied(original, tmp_path)
    Path(f"{prefix}.data-00000-of-00001").unlink()
    refused(tmp_path, "256_256_resfcn256_weight.data-00000-of-00001' is missing", prefix, uv_data)


@pytest.mark.parametrize("name", ["index", "data-00000-of-00001"])
def test_a_truncated_file(original, uv_data, tmp_path, name):
    prefix = copied(original, tmp_path)
    piece = Path(f"{prefix}.{name}")
    piece.write_bytes(piece.read_bytes()[:piece.stat().st_size // 2])
    refused(tmp_path, "is truncated or damaged", prefix, uv_data)


def test_a_flipped_bit(original, uv_data, tmp_path):
    prefix = copied(original, tmp_path)
    piece = Path(f"{prefix}.data-00000-of-00001")
    content = bytearray(piece.read_bytes())
    content[len(content) // 3] ^= 4
    piece.write_bytes(content)
    result = convert("--checkpoint", prefix, "--uv-data", uv_data, "-o", tmp_path / "out")
    # The optimiser's state is not read, so that damage to it does no harm.
    assert "is truncated or damaged" in result.stderr or result.returncode == 0
    assert (tmp_path / "out").exists() == (result.returncode == 0)


def test_a_checkpoint_of_something_else(tf, uv_data, tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("dense/kernel", initializer=np.ones((3, 4), np.float32))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "other"), write_meta_graph=False)
    refused(tmp_path, "the checkpoint of another network: none of its variables, 'dense/kernel'", tmp_path / "other", uv_data)


@pytest.mark.parametrize("change, says", [
    (lambda values: values.pop("resfcn256/resBlock_3/Conv_1/weights"), "has no variable 'resfcn256/resBlock_3/Conv_1/weights'"),
    (lambda values: values.update({"resfcn256/Conv_7/biases": np.ones(3)}), "has a variable 'resfcn256/Conv_7/biases'"),
    (lambda values: values.update({"resfcn256/Conv/weights": np.ones((3, 3, 3, 16))}), "has shape (3, 3, 3, 16) instead of"),
    (lambda values: values["resfcn256/Conv/weights"].fill(np.nan), "holds values that are no numbers"),
])
def test_a_checkpoint_that_nearly_fits(tf, original, uv_data, tmp_path, change, says):
    reader = tf.train.load_checkpoint(str(original[0]))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if "Adam" not in name}
    change(values)
    with tf.Graph().as_default(), tf.Session() as session:
        for name, value in values.items():
            tf.get_variable(name, initializer=np.float32(value))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "near"), write_meta_graph=False)
    refused(tmp_path, says, tmp_path / "near", uv_data)


def test_an_output_that_is_there_already(original, uv_data, tmp_path):
    (tmp_path / "out").mkdir()
    refused(tmp_path, "exists already", original[0], uv_data)


def test_a_prefix_that_is_a_file_name(original, uv_data, tmp_path):
    refused(tmp_path, "without .index or .data", f"{original[0]}.index", uv_data)
