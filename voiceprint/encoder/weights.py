"""The network's weights, from the file in the `resemblyzer` package.

`resemblyzer/pretrained.pt` is in torch's legacy format, little-endian throughout:

    pickle   a magic number
    pickle   the version of the protocol, 1001
    pickle   properties of the machine that wrote the file
    pickle   the content; a tensor is a call on a "persistent id" that names a storage, its type and size
    pickle   the list of the storages' names
    for each of these, in order: its count as int64, then its float32 values

`plain_pickle` reads the pickles and runs no code of theirs. Neither torch nor `resemblyzer`, which imports
torch, is imported.
"""

from __future__ import annotations

import importlib.util
import math
import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.encoder.plain_pickle import Call, TensorStorage, WrongFileError, load_pickle
from voiceprint.errors import EncoderError

Weights = dict[str, NDArray[np.float32]]

MELS: Final = 40
HIDDEN: Final = 256
LAYERS: Final = 3

SHAPES: Final[dict[str, tuple[int, ...]]] = {
    **{f"lstm.weight_ih_l{layer}": (4 * HIDDEN, HIDDEN if layer else MELS) for layer in range(LAYERS)},
    **{f"lstm.weight_hh_l{layer}": (4 * HIDDEN, HIDDEN) for layer in range(LAYERS)},
    **{f"lstm.bias_{kind}_l{layer}": (4 * HIDDEN,) for kind in ("ih", "hh") for layer in range(LAYERS)},
    "linear.weight": (HIDDEN, HIDDEN),
    "linear.bias": (HIDDEN,),
}
"""Shape of each weight of the network, by its name in torch."""

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_REINSTALL: Final = "Reinstall it: `pip install --force-reinstall --no-deps resemblyzer`."


def weights_file() -> Path:
    """The file of weights of the installed `resemblyzer`, which is not imported. Raises `EncoderError`."""
    try:
        found = importlib.util.find_spec("resemblyzer")
    except (ImportError, ValueError):  # ValueError: a module without a spec has this name
        found = None
    for folder in (found.submodule_search_locations if found else None) or ():
        path = Path(folder, "pretrained.pt")
        if path.is_file():
            return path
    package = "The package resemblyzer, which has the encoder's weights,"
    if found is not None:
        raise EncoderError(f"{package} is installed without its file pretrained.pt. {_REINSTALL}")
    raise EncoderError(
        f"{package} is not installed. `pip install --no-deps resemblyzer` is enough: torch, librosa and "
        "its other dependencies are not needed for the weights."
    )


def read_weights(path: Path) -> Weights:
    """The weights in `path`, each float32 in the shape of `SHAPES`.

    Raises `EncoderError` for a file that cannot be read, is damaged, or holds another network.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise EncoderError(f"The encoder's weights in {path} cannot be read ({error}).") from error
    except WrongFileError as error:
        raise EncoderError(
            f"The encoder's weights in {path} are damaged, or of another network ({error}). {_REINSTALL}"
        ) from error


def _read(file: BinaryIO) -> Weights:
    if load_pickle(file) != _MAGIC or load_pickle(file) != _PROTOCOL:
        raise WrongFileError("it does not begin like a file of torch")
    machine = load_pickle(file)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise WrongFileError("it is not little-endian")
    content, names = load_pickle(file), load_pickle(file)
    tensors = content.get("model_state") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not isinstance(names, list):
        raise WrongFileError("it has no model_state")
    views = {name: _view(name, tensors.get(name)) for name in SHAPES}
    storages = _read_storages(file, names, {storage for storage, _ in views.values()})
    weights = {}
    for name, (storage, offset) in views.items():
        shape = SHAPES[name]
        values = storages[storage][offset : offset + math.prod(shape)].reshape(shape)
        if not np.isfinite(values).all():
            raise WrongFileError(f"{name} holds numbers that are not finite")
        weights[name] = values
    return weights


def _view(name: str, tensor: Any) -> tuple[TensorStorage, int]:
    """The storage of a tensor and its offset there, after a check of type and shape."""
    shape = SHAPES[name]
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    if not isinstance(tensor, Call) or tensor.function != "torch._utils _rebuild_tensor_v2":
        raise WrongFileError(f"{name} is not a tensor")
    if len(tensor.arguments) < 4:
        raise WrongFileError(f"{name} is not a tensor")
    storage, offset, size, stride = tensor.arguments[:4]
    if size != shape or stride != strides:
        raise WrongFileError(f"{name} has another shape than {shape}")
    if not isinstance(storage, TensorStorage) or type(offset) is not int:
        raise WrongFileError(f"{name} is not a tensor of float32")
    if not 0 <= offset <= storage.length - math.prod(shape):
        raise WrongFileError(f"{name} lies outside of its storage")
    return storage, offset


def _read_storages(
    file: BinaryIO, names: list[Any], wanted: set[TensorStorage]
) -> dict[TensorStorage, NDArray[np.float32]]:
    """The values of the wanted storages; the others, of an optimizer's state, are skipped."""
    by_name = {storage.name: storage for storage in wanted}
    if len(by_name) != len(wanted) or any(not isinstance(name, str) for name in names):
        raise WrongFileError("its storages have no clear names")
    start = file.tell()
    size = file.seek(0, 2)
    file.seek(start)
    found: dict[TensorStorage, NDArray[np.float32]] = {}
    for name in names:
        (count,) = struct.unpack("<q", _exactly(file, 8))
        if not 0 <= count <= (size - file.tell()) // 4:
            raise WrongFileError("it ends too early")
        storage = by_name.get(name)
        if storage is None:
            file.seek(4 * count, 1)
            continue
        if count != storage.length or storage in found:
            raise WrongFileError("a storage has another size than its tensor names")
        found[storage] = np.frombuffer(_exactly(file, 4 * count), dtype="<f4").astype(np.float32)
    if len(found) != len(wanted):
        raise WrongFileError("a storage is missing")
    return found


def _exactly(file: BinaryIO, count: int) -> bytes:
    read = file.read(count)
    if len(read) != count:
        raise WrongFileError("it ends too early")
    return read
