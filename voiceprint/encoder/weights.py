"""The network's weights, out of the file that the `resemblyzer` package brings.

`resemblyzer/pretrained.pt` is in torch's legacy format, little-endian throughout:

    pickle   a magic number
    pickle   the version of the protocol, 1001
    pickle   facts of the machine that wrote it
    pickle   the content; a tensor is a call on a "persistent id" that names a storage, its type and size
    pickle   the list of the storages' names
    for each of these, in order: its count as int64, then its float32 values

Pickles are programs, so no unpickler runs here: `_Pickle` knows the few instructions that such a file
needs, builds plain values from them, and takes "call this" for a note of what would be called. The file
is read without torch, and without importing `resemblyzer`, which would import torch.
"""

from __future__ import annotations

import importlib.util
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
"""The weights that the network has, as torch names them, and the shape of each."""

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_LONGEST_PICKLE: Final = 1 << 16  # the file's longest has 6 KB
_MOST_VALUES: Final = 1 << 20  # that a pickle may hold: the file's largest has some 2,000
_REINSTALL: Final = "Install it anew: `pip install --force-reinstall --no-deps resemblyzer`."


def weights_file() -> Path:
    """Where the installed `resemblyzer` keeps its weights; the package is looked for and not imported."""
    try:
        found = importlib.util.find_spec("resemblyzer")
    except (ImportError, ValueError):  # ValueError: something without a spec stands in its place
        found = None
    for folder in (found.submodule_search_locations if found else None) or ():
        path = Path(folder, "pretrained.pt")
        if path.is_file():
            return path
    brings = "The package resemblyzer, which brings the encoder's weights,"
    if found is not None:
        raise EncoderError(f"{brings} is installed without its file pretrained.pt. {_REINSTALL}")
    raise EncoderError(
        f"{brings} is not installed. `pip install --no-deps resemblyzer` is enough: torch, librosa and what "
        "else it depends on are not needed for its weights."
    )


def read_weights(path: Path) -> Weights:
    """The weights in `path`, each float32 in the shape of `SHAPES`.

    Raises `EncoderError` for a file that cannot be read or is not such a file, whatever it holds.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise EncoderError(f"The encoder's weights in {path} cannot be read ({error}).") from error
    except _WrongFileError as error:
        raise EncoderError(
            f"The encoder's weights in {path} are damaged, or of another network ({error}). {_REINSTALL}"
        ) from error


class _WrongFileError(Exception):
    """Why it is not such a file."""


class _Call(NamedTuple):
    """A call that the file asks for; nobody makes it."""

    function: str
    arguments: tuple[Any, ...]


class _Function(NamedTuple):
    name: str


class _Storage(NamedTuple):
    name: str
    length: int


def _read(file: BinaryIO) -> Weights:
    if _load(file) != _MAGIC or _load(file) != _PROTOCOL:
        raise _WrongFileError("it does not begin as a file of torch")
    machine = _load(file)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise _WrongFileError("it is not little-endian")
    content, names = _load(file), _load(file)
    tensors = content.get("model_state") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not isinstance(names, list):
        raise _WrongFileError("it has no model_state")
    views = {name: _view(name, tensors.get(name)) for name in SHAPES}
    storages = _read_storages(file, names, {storage for storage, _ in views.values()})
    weights = {}
    for name, (storage, offset) in views.items():
        shape = SHAPES[name]
        values = storages[storage][offset : offset + math.prod(shape)].reshape(shape)
        if not np.isfinite(values).all():
            raise _WrongFileError(f"{name} holds numbers that are not finite")
        weights[name] = values
    return weights


def _view(name: str, tensor: Any) -> tuple[_Storage, int]:
    """The storage that a tensor lies in, and where it begins; checked to be the tensor of that name."""
    shape = SHAPES[name]
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    if not isinstance(tensor, _Call) or tensor.function != "torch._utils _rebuild_tensor_v2":
        raise _WrongFileError(f"{name} is not a tensor")
    if len(tensor.arguments) < 4:
        raise _WrongFileError(f"{name} is not a tensor")
    storage, offset, size, stride = tensor.arguments[:4]
    if size != shape or stride != strides:
        raise _WrongFileError(f"{name} has another shape than {shape}")
    if not isinstance(storage, _Storage) or type(offset) is not int:
        raise _WrongFileError(f"{name} is not a tensor of float32")
    if not 0 <= offset <= storage.length - math.prod(shape):
        raise _WrongFileError(f"{name} lies outside of its storage")
    return storage, offset


def _read_storages(
    file: BinaryIO, names: list[Any], wanted: set[_Storage]
) -> dict[_Storage, NDArray[np.float32]]:
    """The values of the wanted storages; the others, an optimizer's state, are passed over."""
    by_name = {storage.name: storage for storage in wanted}
    if len(by_name) != len(wanted) or any(not isinstance(name, str) for name in names):
        raise _WrongFileError("its storages have no clear names")
    start = file.tell()
    size = file.seek(0, 2)
    file.seek(start)
    found: dict[_Storage, NDArray[np.float32]] = {}
    for name in names:
        (count,) = struct.unpack("<q", _exactly(file, 8))
        if not 0 <= count <= (size - file.tell()) // 4:
            raise _WrongFileError("it ends too early")
        storage = by_name.get(name)
        if storage is None:
            file.seek(4 * count, 1)
            continue
        if count != storage.length or storage in found:
            raise _WrongFileError("a storage has not the size that it should have")
        found[storage] = np.frombuffer(_exactly(file, 4 * count), dtype="<f4").astype(np.float32)
    if len(found) != len(wanted):
        raise _WrongFileError("a storage is missing")
    return found


def _exactly(file: BinaryIO, count: int) -> bytes:
    read = file.read(count)
    if len(read) != count:
        raise _WrongFileError("it ends too early")
    return read


def _load(file: BinaryIO) -> Any:
    """The value of the pickle that begins here; leaves the file at its end."""
    start = file.tell()
    pickle = _Pickle(file.read(_LONGEST_PICKLE))
    try:
        value = pickle.value()
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        # What the stack holds is not what the instruction needs.
        raise _WrongFileError(f"its pickle at {start} cannot be read: {type(error).__name__}") from error
    file.seek(start + pickle.place)
    return value


class _Mark:
    """Where on the stack the items of a tuple, list or dict begin."""


class _Pickle:
    """Makes the value of a pickle from plain numbers, texts, tuples, lists and dicts."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.place = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def value(self) -> Any:
        for _ in range(_MOST_VALUES):
            code = self._take(1)
            if code == b".":
                (value,) = self._stack
                return value
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise _WrongFileError(f"its pickle holds the instruction {code!r}, which weights do not need")
            instruction(self)
        raise _WrongFileError("its pickle does not end")

    def _take(self, count: int) -> bytes:
        taken = self._content[self.place : self.place + count]
        if len(taken) != count:
            raise _WrongFileError("its pickle has no end")
        self.place += count
        return taken

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self._content.index(b"\n", self.place)
        return self._take(end + 1 - self.place)[:-1].decode("ascii")

    def _items(self) -> list[Any]:
        """What lies above the last mark; both are taken off."""
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _Mark:
                items = self._stack[place + 1 :]
                del self._stack[place:]
                return items
        raise _WrongFileError("its pickle has no mark where it needs one")

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise _WrongFileError("its pickle fills something that it has not made")
        return self._stack[-1]

    # The instructions, in the order of the table below

    def _protocol(self) -> None:
        if self._take(1) != b"\x02":
            raise _WrongFileError("its pickle is of another protocol")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _long(self) -> None:
        self._push(int.from_bytes(self._take(self._number("<B")), "little", signed=True))

    def _text(self) -> None:
        self._push(self._take(self._number("<I")).decode("utf-8"))

    def _tuple(self, count: int) -> None:
        items = [self._stack.pop() for _ in range(count)]
        self._push(tuple(reversed(items)))

    def _fill_list(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _fill_dict(self, items: list[Any]) -> None:
        keys = items[::2]
        if not all(isinstance(key, str | int) for key in keys):  # the hash of a tuple may take for ever
            raise _WrongFileError("its pickle holds a dict of other keys than texts and numbers")
        self._top(dict).update(zip(keys, items[1::2], strict=True))

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._fill_dict([key, value])

    def _remember(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def _function(self) -> None:
        self._push(_Function(f"{self._line()} {self._line()}"))

    def _call(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Function) or not isinstance(arguments, tuple):
            raise _WrongFileError("its pickle calls what is no function")
        if function.name == "collections OrderedDict" and arguments == ():
            self._push({})
        elif function.name == "torch._utils _rebuild_tensor_v2":
            self._push(_Call(function.name, arguments))
        else:
            raise _WrongFileError(f"its pickle calls {function.name[:80]!r}, which weights do not need")

    def _build(self) -> None:
        # An attribute of a dict, `_metadata`: nothing of it is needed.
        self._stack.pop()
        self._top(dict)

    def _storage(self) -> None:
        kind, function, name, _, count, *_ = self._stack.pop()
        if kind != "storage" or function != _Function("torch FloatStorage"):
            raise _WrongFileError("it holds other numbers than float32")
        if type(count) is not int or not isinstance(name, str):
            raise _WrongFileError("a storage has no size")
        self._push(_Storage(name, count))


_INSTRUCTIONS: Final[dict[bytes, Callable[[_Pickle], None]]] = {
    b"\x80": lambda pickle: pickle._protocol(),
    b"N": lambda pickle: pickle._push(None),
    b"\x88": lambda pickle: pickle._push(True),
    b"\x89": lambda pickle: pickle._push(False),
    b"K": lambda pickle: pickle._push(pickle._number("<B")),
    b"M": lambda pickle: pickle._push(pickle._number("<H")),
    b"J": lambda pickle: pickle._push(pickle._number("<i")),
    b"G": lambda pickle: pickle._push(pickle._number(">d")),
    b"\x8a": lambda pickle: pickle._long(),
    b"X": lambda pickle: pickle._text(),
    b"(": lambda pickle: pickle._push(_Mark),
    b")": lambda pickle: pickle._tuple(0),
    b"\x85": lambda pickle: pickle._tuple(1),
    b"\x86": lambda pickle: pickle._tuple(2),
    b"\x87": lambda pickle: pickle._tuple(3),
    b"t": lambda pickle: pickle._push(tuple(pickle._items())),
    b"]": lambda pickle: pickle._push([]),
    b"a": lambda pickle: pickle._fill_list([pickle._stack.pop()]),
    b"e": lambda pickle: pickle._fill_list(pickle._items()),
    b"}": lambda pickle: pickle._push({}),
    b"s": lambda pickle: pickle._set_item(),
    b"u": lambda pickle: pickle._fill_dict(pickle._items()),
    b"q": lambda pickle: pickle._remember(pickle._number("<B")),
    b"r": lambda pickle: pickle._remember(pickle._number("<I")),
    b"h": lambda pickle: pickle._push(pickle._memo[pickle._number("<B")]),
    b"j": lambda pickle: pickle._push(pickle._memo[pickle._number("<I")]),
    b"c": lambda pickle: pickle._function(),
    b"R": lambda pickle: pickle._call(),
    b"b": lambda pickle: pickle._build(),
    b"Q": lambda pickle: pickle._storage(),
}
