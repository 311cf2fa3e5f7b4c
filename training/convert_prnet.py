"""PRNet's released weights as a model bundle: `python -m training.convert_prnet`, which `build.py convert-prnet` runs.

Reads the TensorFlow checkpoint and PRNet's `Data/uv-data` (face_ind.txt, uv_kpt_ind.txt, and canonical_vertices.npy if it is
there), writes one bundle folder, or nothing. The only product code that imports TensorFlow, and only for reading. A mistake
of the user's gets one sentence on stderr and exit status 2.
"""
from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from prn_blender.prn.errors import CaptureError
from prn_blender.prn.face_fit import similarity
from prn_blender.prn.position_map import SIZE, Topology, load_topology
from prn_blender.prn.resfcn256 import INPUT_SIZE, ResFcn256
from prn_blender.prn.weights import write_bundle
from training.carried import weights_of

SCOPE = "resfcn256"
VERTICES = 43867                            # lines of face_ind.txt in PRNet's release
REFERENCE_STEP = 16                         # every so-manieth vertex of the average face tells the pose: 2,742 points
OPTIMISER = ("/Adam", "/Adam_1", "/Momentum", "/RMSProp", "/RMSProp_1")     # what training leaves beside a variable
COUNTERS = ("beta1_power", "beta2_power", "global_step")                    # and on its own
LICENCE = "Research only: trained by PRNet's authors on 300W-LP and the Basel Face Model; no commercial use"
# PRNet's crop has 255 steps between its first and its last pixel centre where ours has 256 pixels.
CROP = {"side": 1.6 * INPUT_SIZE / (INPUT_SIZE - 1), "mean": "arithmetic"}


# ---- the checkpoint ----------------------------------------------------------------------------------------------


def variables(network: ResFcn256) -> dict[str, tuple[str, tuple[int, ...]]]:
    """By TensorFlow's name: our tensor and the shape that TensorFlow gives it. Names are those that slim hands out in order."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    state = network.state_dict()

    def kernel(scope: str, ours: str) -> None:
        outer, inner, height, width = state[f"{ours}.weight"].shape
        found[f"{scope}/weights"] = f"{ours}.weight", (height, width, inner, outer)

    def norm(scope: str, ours: str) -> None:
        for theirs, name in (("gamma", "weight"), ("beta", "bias"), ("moving_mean", "running_mean"),
                             ("moving_variance", "running_var")):
            found[f"{scope}/BatchNorm/{theirs}"] = f"{ours}.{name}", tuple(state[f"{ours}.{name}"].shape)

    def normed(scope: str, ours: str) -> None:
        kernel(scope, f"{ours}.convolution")
        norm(scope, f"{ours}.norm")

    normed(f"{SCOPE}/Conv", "first")
    for number, block in enumerate(network.blocks):
        scope, ours = f"{SCOPE}/resBlock{f'_{number}' if number else ''}", f"blocks.{number}"
        if isinstance(block.shortcut, nn.Conv2d):
            kernel(f"{scope}/shortcut", f"{ours}.shortcut")
        normed(f"{scope}/Conv", f"{ours}.narrow")
        normed(f"{scope}/Conv_1", f"{ours}.middle")
        kernel(f"{scope}/Conv_2", f"{ours}.widen")
        norm(scope, ours + ".norm")
    for number in range(len(network.decoder)):
        normed(f"{SCOPE}/Conv2d_transpose{f'_{number}' if number else ''}", f"decoder.{number}")
    return found


def norm_scope(name: str) -> str:
    """A variable that only training needs, reduced to the one it belongs to; other names stay."""
    for ending in OPTIMISER:
        name = name.removesuffix(ending)
    return name


def read_checkpoint(prefix: str, network: ResFcn256) -> None:
    """Fills the network from a TensorFlow checkpoint. Raises CaptureError unless every variable finds its place."""
    index = Path(f"{prefix}.index")
    if not index.is_file():
        hint = " (give the common beginning of its files' names, without .index or .data)" if Path(prefix).exists() else ""
        raise CaptureError(f"There is no checkpoint '{prefix}', because '{index}' does not exist{hint}: check the name.")
    shards = list(index.parent.glob(f"{index.stem}.data-*-of-*"))
    wanted = int(shards[0].name.rsplit("-of-", 1)[1]) if shards else 1
    if len(shards) < max(wanted, 1):
        missing = next(name for number in range(wanted)
                       if not (name := index.with_name(f"{index.stem}.data-{number:05d}-of-{wanted:05d}")).exists())
        raise CaptureError(f"The checkpoint's file '{missing}' is missing: put it beside '{index.name}'.")
    import tensorflow as tf     # here, because it takes seconds

    damaged = CaptureError(f"The checkpoint '{prefix}' is truncated or damaged: copy or download it again.")
    places = variables(network)
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
    except Exception as error:          # TensorFlow raises half a dozen of classes for one and the same thing
        raise damaged from error
    kept = {name for name in shapes if norm_scope(name) == name and name not in COUNTERS}
    strays = sorted(kept - set(places)) + sorted(
        name for name in set(shapes) - kept if name not in COUNTERS and norm_scope(name) not in places)
    absent = sorted(set(places) - kept)
    if not kept & set(places):
        raise CaptureError(f"'{prefix}' is the checkpoint of another network: none of its variables, '{strays[0]}' for one, "
                           f"belongs to resfcn256." if strays else f"The checkpoint '{prefix}' is empty: download it again.")
    if absent:
        raise CaptureError(f"The checkpoint '{prefix}' has no variable '{absent[0]}': it is not the resfcn256 that PRNet released.")
    if strays:
        raise CaptureError(f"The checkpoint '{prefix}' has a variable '{strays[0]}' that has no place in resfcn256: it is not the "
                           f"one that PRNet released.")
    state = network.state_dict()
    for theirs, (ours, shape) in places.items():
        if tuple(shapes[theirs]) != shape:
            raise CaptureError(f"The checkpoint's variable '{theirs}' has shape {tuple(shapes[theirs])} instead of {shape}: it is "
                               f"not the resfcn256 that PRNet released.")
        try:
            values = reader.get_tensor(theirs)
        except Exception as error:
            raise damaged from error
        if not np.isfinite(values).all():
            raise CaptureError(f"The checkpoint's variable '{theirs}' holds values that are no numbers: download it again.")
        # TensorFlow: height, width, in, out; transposed: height, width, out, in. torch has these two first, in that order.
        state[ours].copy_(torch.from_numpy(values.transpose(3, 2, 0, 1) if values.ndim == 4 else values))


# ---- uv-data -----------------------------------------------------------------------------------------------------


def whole_numbers(path: Path, count: int) -> np.ndarray:
    """The whole numbers in a text file of PRNet's. Raises CaptureError if they are not `count` texels or indices."""
    try:
        values = np.loadtxt(path)
    except FileNotFoundError:
        raise CaptureError(f"'{path}' does not exist: --uv-data is the folder Data/uv-data of PRNet.") from None
    except OSError as error:
        raise CaptureError(f"'{path}' cannot be read ({error.strerror}): check the file and its permissions.") from None
    except ValueError:
        raise CaptureError(f"'{path}' is damaged, it holds something else than numbers: download it again.") from None
    if values.size != count:
        raise CaptureError(f"'{path}' holds {values.size} numbers instead of {count}: it is truncated or not PRNet's.")
    if not np.isfinite(values).all() or (values != np.round(values)).any() or values.min() < 0:
        raise CaptureError(f"'{path}' holds numbers that are no texels: it is damaged or not PRNet's.")
    return values.astype(np.int64)


def read_topology(folder: Path) -> Topology:
    """PRNet's topology from its uv-data. Its mesh follows from the grid of texels; triangles.txt is not needed.

    Raises CaptureError if a file is missing or wrong.
    """
    if not folder.is_dir():
        raise CaptureError(f"'{folder}' is not a folder: --uv-data is the folder Data/uv-data of PRNet.")
    texels = whole_numbers(folder / "face_ind.txt", VERTICES).ravel()
    landmarks = whole_numbers(folder / "uv_kpt_ind.txt", 2 * 68).reshape(2, 68).T       # column, row
    if texels.max() >= SIZE * SIZE or (np.diff(texels) <= 0).any():
        raise CaptureError(f"'{folder / 'face_ind.txt'}' is not PRNet's: its indices have to ascend and stay below {SIZE * SIZE}.")
    mask = np.zeros(SIZE * SIZE, bool)
    mask[texels] = True
    mask = mask.reshape(SIZE, SIZE)
    if landmarks.max() >= SIZE or not mask[landmarks[:, 1], landmarks[:, 0]].all():
        raise CaptureError(f"'{folder / 'uv_kpt_ind.txt'}' is not PRNet's: its landmarks have to lie on the face of face_ind.txt.")
    # The average head that tells the pose: PRNet's own, brought into our head frame by its landmarks; or without it, ours.
    ours = load_topology()
    average = ours.landmarks_of(ours.mean).astype(np.float64)
    path = folder / "canonical_vertices.npy"
    if not path.exists():
        return Topology("prnet", mask, landmarks.astype(np.float32), landmarks.astype(np.float32), average.astype(np.float32))
    try:
        vertices = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise CaptureError(f"'{path}' is damaged: download it again, or take it away (it may be missing).") from None
    if vertices.shape != (VERTICES, 3) or not np.isfinite(vertices).all():
        raise CaptureError(f"'{path}' holds {vertices.shape} numbers instead of ({VERTICES}, 3): it is not PRNet's.")
    vertices = vertices * (1, 1, -1)        # PRNet's z grows towards the camera
    place = np.searchsorted(texels, landmarks[:, 1] * SIZE + landmarks[:, 0])
    scale, rotation, translation = similarity(vertices[place], average, np.ones(68))
    vertices = (scale * vertices @ rotation.T + translation)[::REFERENCE_STEP]
    rows, columns = np.divmod(texels[::REFERENCE_STEP], SIZE)
    return Topology("prnet", mask, landmarks.astype(np.float32), np.stack([columns, rows], 1).astype(np.float32),
                    vertices.astype(np.float32))


# ---- the command -------------------------------------------------------------------------------------------------


def convert(prefix: str, uv_data: Path, out: Path) -> None:
    """Writes the bundle `out`, a folder that must not be there yet. Raises CaptureError and leaves nothing if it cannot."""
    from training.export import TOLERANCE, difference, export_onnx

    if out.exists():
        raise CaptureError(f"'{out}' exists already: choose another name for -o, or remove it.")
    if not out.parent.is_dir():
        raise CaptureError(f"The folder '{out.parent}' does not exist: create it, or choose another place for -o.")
    topology = read_topology(uv_data)
    network = ResFcn256()
    read_checkpoint(prefix, network)
    network.eval()
    model = export_onnx(network, INPUT_SIZE, halves=False)
    error = difference(network, model, INPUT_SIZE)
    if error > TOLERANCE:
        raise CaptureError(f"The ONNX export differs from torch by {error:.1e} of the crop, so nothing was written: report this.")
    tensors = weights_of(network.state_dict())
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        write_bundle(folder / out.name, tensors, model, {
            "architecture": SCOPE, "input_size": str(INPUT_SIZE), "crop": CROP, "licence": LICENCE, "research_only": "true",
            "sources": [{"what": "PRNet's released checkpoint (Feng et al., ECCV 2018)", "licence": "research only"}],
        }, topology=topology, halves=False)
        os.rename(folder / out.name, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"wrote {out}: {sum(piece.stat().st_size for piece in out.iterdir()) / 1e6:.0f} MB, {len(tensors)} tensors, "
          f"the export differs from torch by {error:.1e} of the crop")
    print(f"licence: {LICENCE}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="build.py convert-prnet", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", metavar="PREFIX", required=True,
                        help="PRNet's weights, without .index or .data: Data/net-data/256_256_resfcn256_weight")
    parser.add_argument("--uv-data", metavar="DIR", type=Path, required=True, help="PRNet's folder Data/uv-data")
    parser.add_argument("-o", "--output", metavar="BUNDLE", type=Path, required=True, help="folder to write; it must not exist")
    request = parser.parse_args(arguments)
    try:
        convert(request.checkpoint, request.uv_data, request.output)
    except CaptureError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"Could not write the bundle: {error.strerror or error}.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}      # or it talks on stderr
    sys.exit(main(sys.argv[1:]))
