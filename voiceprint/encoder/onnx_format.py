"""ONNX models built in code, and the facts that a model file states: the part of the format that these need.

A model is a protocol buffer (onnx.proto3 of ONNX 1.14, IR version 8). The `onnx` package would also write it,
but is a dependency of 20 MB for these few messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

_IR_VERSION: Final = 8
_TYPES: Final = {"float32": 1, "int8": 3, "int64": 7}
_INT: Final = 2  # AttributeProto.AttributeType
_INTS: Final = 7
_EXTERNAL: Final = 1  # TensorProto.DataLocation


def model(
    nodes: Sequence[bytes],
    constants: Mapping[str, NDArray[Any]],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    operators: Mapping[str, int],
    *,
    lengths: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """A ModelProto of one graph.

    nodes: from `node`, in the order of execution. inputs, outputs: shapes of float32 tensors; a name is a
    variable length. operators: version of each set of operators, "" for ONNX's own. lengths: further inputs,
    int64[n] each. metadata: properties of the model by name.
    """
    graph = b"".join(
        [_field(1, each) for each in nodes]
        + [_field(2, b"graph")]
        + [_field(5, _tensor(name, value)) for name, value in constants.items()]
        + [_field(11, _value(name, shape)) for name, shape in inputs.items()]
        + [_field(11, _value(name, ["n"], "int64")) for name in lengths]
        + [_field(12, _value(name, shape)) for name, shape in outputs.items()]
    )
    sets = [_field(8, _field(1, domain) + _number(2, version)) for domain, version in operators.items()]
    properties = [_field(14, _field(1, name) + _field(2, text)) for name, text in (metadata or {}).items()]
    return _number(1, _IR_VERSION) + _field(7, graph) + b"".join(sets + properties)


def node(
    operator: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    domain: str = "",
    **attributes: int | Sequence[int],
) -> bytes:
    """A NodeProto; an empty name leaves an input or output out."""
    return b"".join(
        [_field(1, name) for name in inputs]
        + [_field(2, name) for name in outputs]
        + [_field(4, operator)]
        + [_field(5, _attribute(name, value)) for name, value in attributes.items()]
        + [_field(7, domain)]
    )


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return _field(1, name) + _number(3, value) + _number(20, _INT)
    return _field(1, name) + b"".join(_number(8, each) for each in value) + _number(20, _INTS)


def _tensor(name: str, value: NDArray[Any]) -> bytes:
    little = value.astype(value.dtype.newbyteorder("<"), copy=False)
    dims = [_number(1, length) for length in value.shape]
    return b"".join(
        [*dims, _number(2, _TYPES[value.dtype.name]), _field(8, name), _field(9, little.tobytes())]
    )


def _value(name: str, shape: Sequence[int | str], of: str = "float32") -> bytes:
    dims = [_field(1, _field(2, n) if isinstance(n, str) else _number(1, n)) for n in shape]
    tensor = _number(1, _TYPES[of]) + _field(2, b"".join(dims))
    return _field(1, name) + _field(2, _field(1, tensor))


def _field(number: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


class ModelFacts(NamedTuple):
    """The facts that a ModelProto states.

    metadata: its properties by name. outputs: number of its graph's outputs. is_whole: whether no weight lies
    in another file.
    """

    metadata: dict[str, str]
    outputs: int
    is_whole: bool


def model_facts(data: bytes) -> ModelFacts:
    """The facts in a ModelProto; no weight is read. Raises ValueError where the bytes are no model."""
    metadata: dict[str, str] = {}
    outputs, is_whole, has_graph = 0, True, False
    for number, content in _messages(memoryview(data)):
        if number == 7:
            has_graph = True
            outputs += sum(inner == 12 for inner, _ in _messages(content))
            is_whole &= _holds_its_weights("graph", content)
        elif number == 25:
            is_whole &= _holds_its_weights("function", content)
        elif number == 14:
            entry = {inner: bytes(text).decode() for inner, text in _messages(content)}
            metadata[entry.get(1, "")] = entry.get(2, "")
    if not has_graph:
        raise ValueError("there is no graph")
    return ModelFacts(metadata, outputs, is_whole)


# The fields that hold tensors, at any depth: a weight may be an initializer, or an attribute of a node, also
# in the branch of an If or in a function.
_PARTS: Final[dict[str, dict[int, str]]] = {
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
_DEEPEST: Final = 60  # messages within each other: published models have 4, a loop in a loop 7


def _holds_its_weights(kind: str, message: memoryview, depth: int = 0) -> bool:
    """Whether no tensor in the message lies in another file. Raises ValueError for a message too deep."""
    if kind == "tensor":
        return all(number != 13 and (number, value) != (14, _EXTERNAL) for number, value in _fields(message))
    if depth > _DEEPEST:
        raise ValueError("its graphs are nested too deeply")
    return all(
        _holds_its_weights(_PARTS[kind][number], part, depth + 1)
        for number, part in _messages(message)
        if number in _PARTS[kind]
    )


def with_exact_pools(data: bytes) -> bytes:
    """The model with average pools that divide the last window by the cells within the input.

    Under `ceil_mode` with `count_include_pad`, ONNX Runtime up to 1.28 divides by the whole kernel (its pull
    request 29629), unlike PyTorch: in 3D-Speaker's CAM++ 1 - cosine is up to 0.04 by it. Without padding,
    `count_include_pad = 0` means the same and is right in every version.
    """
    content = bytearray(data)
    for number, graph in _messages(memoryview(content)):
        if number == 7:
            for inner, one in _messages(graph):
                if inner == 1:
                    _make_pool_exact(one)
    return bytes(content)


def _make_pool_exact(one: memoryview) -> None:
    """Change a NodeProto in place where it is such a pool."""
    parts = [*_messages(one)]
    if b"AveragePool" not in [bytes(part) for number, part in parts if number == 4]:
        return
    attributes = {name: part for number, part in parts if number == 5 for name in _names(part)}
    pads = [value for number, value in _fields(attributes.get(b"pads", memoryview(b""))) if number == 8]
    if any(value if isinstance(value, int) else any(value) for value in pads) or b"auto_pad" in attributes:
        return
    counts = attributes.get(b"count_include_pad")
    if counts is not None and (3, 1) in _fields(attributes.get(b"ceil_mode", memoryview(b""))):
        counts[:] = bytes(counts).replace(_number(3, 1), _number(3, 0))


def _names(attribute: memoryview) -> list[bytes]:
    """The name of an AttributeProto."""
    return [bytes(text) for number, text in _messages(attribute) if number == 1]


def _messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The number and bytes of each field that is no number."""
    for number, value in _fields(message):
        if isinstance(value, memoryview):
            yield number, value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The number and value of each field: an int, or the bytes of any other kind of field."""
    place, end = 0, len(message)
    while place < end:
        key, place = _read_varint(message, place)
        kind = key & 7
        if kind == 0:
            value, place = _read_varint(message, place)
            yield key >> 3, value
            continue
        if kind == 2:
            length, place = _read_varint(message, place)
        elif kind in (1, 5):  # of 64 or 32 bits
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if place + length > end:
            raise ValueError("a field ends after the file")
        yield key >> 3, message[place : place + length]
        place += length


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    value = 0
    for shift, digit in enumerate(message[place : place + 10]):
        value |= (digit & 0x7F) << 7 * shift
        if digit < 0x80:
            return value, place + shift + 1
    raise ValueError("a number that does not end")
