"""The network as torch, as shipped tensors and as the exported graph: one and the same."""

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from pathlib import Path

from prn_blender.prn.crop import crop_from_landmark_box
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.face_fit import reading
from prn_blender.prn.image_io import load_image
from prn_blender.prn.network import INPUT_SIZE, Exported, PositionMapNetwork
from prn_blender.prn.position_map import load_topology, sample
from prn_blender.prn.small_map import SMALL, Places, mean_in_crop, whole
from prn_blender.prn.weights import load_bundle
from training.export import difference, export_onnx

PHOTO = Path(__file__).parent / "data" / "astronaut.jpg"


@pytest.fixture(scope="module")
def bundle():
    return load_bundle()


@pytest.fixture(scope="module")
def network(bundle):
    network = PositionMapNetwork(mean_in_crop(load_topology()))
    state = {name: torch.from_numpy(values.astype(np.float32)) for name, values in
             load_file(bundle.safetensors_path).items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    return network.eval()


def crops() -> np.ndarray:
    image = load_image(PHOTO)
    whole = crop_from_landmark_box(170, 60, 270, 180)
    return np.stack([whole.cut(image, INPUT_SIZE), np.zeros((INPUT_SIZE, INPUT_SIZE, 3), np.float32),
                     np.random.default_rng(0).random((INPUT_SIZE, INPUT_SIZE, 3)).astype(np.float32)])


def test_shipped_tensors_and_graph_agree(bundle, network):
    images = crops()
    maps, expression = OnnxEngine(bundle).run(images)
    with torch.no_grad():
        expected = [part.numpy() for part in Exported(network).eval()(torch.from_numpy(images))]
    assert np.abs(maps - expected[0]).max() < 1e-3
    assert np.abs(expression - expected[1]).max() < 5e-3
    assert maps.shape == (3, 256, 256, 3) and expression.shape == (3, 52)


def test_an_untrained_network_gives_the_mean(bundle):
    torch.manual_seed(0)
    network = PositionMapNetwork(mean_in_crop(load_topology())).eval()
    with torch.no_grad():
        position_map, logits = network(torch.rand(1, 3, INPUT_SIZE, INPUT_SIZE))
    assert np.abs(position_map[0].permute(1, 2, 0).numpy() - mean_in_crop(load_topology())).max() < 0.1
    assert logits.shape == (1, 52)


def test_the_mean_fills_its_crop_like_a_face():
    points = load_topology().landmarks_of(mean_in_crop(load_topology()))[:, :2]
    low, high = points.min(0), points.max(0)
    assert np.allclose(low + high, 0, atol=0.06)
    assert np.sqrt(np.prod(high - low)) == pytest.approx(1 / 1.6, rel=0.08)


def test_export_stores_halves_and_agrees():
    torch.manual_seed(1)
    network = PositionMapNetwork(mean_in_crop(load_topology())).eval()
    network = network.half().float()
    model = export_onnx(network)
    assert difference(network, model) < 1e-3
    weights = sum(value.numel() for value in network.state_dict().values())
    assert len(model) < 2.4 * weights + 1e6


def test_learning_moves_the_map_where_it_is_told():
    """One batch can be learned by heart: the loss reaches every layer."""
    torch.manual_seed(2)
    network = PositionMapNetwork(mean_in_crop(load_topology()))
    images = torch.rand(2, 3, INPUT_SIZE, INPUT_SIZE)
    target = network.mean + torch.linspace(-0.2, 0.2, 2).reshape(2, 1, 1, 1)
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    losses = []
    for _ in range(25):
        loss = (network(images)[0] - target).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_the_shipped_network_finds_a_face(bundle):
    """The astronaut's eyes, nose tip and mouth corners within a twelfth of the face: where they are in the photo."""
    image = load_image(PHOTO)
    crop = crop_from_landmark_box(170, 60, 270, 180)
    position_map = crop.to_image(OnnxEngine(bundle).run(crop.cut(image, INPUT_SIZE)[None])[0][0])
    points = load_topology().landmarks_of(position_map)[:, :2]
    inside = (points > 0).all() and (points < image.shape[0]).all()
    assert inside
    eyes = points[36:42].mean(0), points[42:48].mean(0)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    for x, y in eyes:                               # eyes are darker than the cheek below them
        x, y = int(round(x)), int(round(y))
        assert grey[y - 3:y + 4, x - 6:x + 7].mean() < grey[y + 14:y + 24, x - 6:x + 7].mean()


def test_a_small_map_enlarged_is_the_whole_map(network):
    photo = torch.from_numpy(crop_from_landmark_box(170, 60, 270, 180).cut(load_image(PHOTO), INPUT_SIZE)).permute(2, 0, 1)[None]
    with torch.no_grad():
        whole_map, small = (found[0][0].permute(1, 2, 0).numpy() for found in (network(photo), network.small(photo)))
    assert small.shape == (SMALL, SMALL, 3)
    assert np.abs(whole(small) - whole_map).max() < 1e-5
    assert np.abs(small - reading(whole_map)).max() < 1e-3      # interpolated, it is a little blurred there
    assert whole(whole_map) is whole_map
    texels = load_topology().landmarks
    assert np.abs(Places(texels, SMALL).of(small[None])[0] - sample(whole_map, texels)).max() < 1e-5
