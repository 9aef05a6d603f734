"""ONNX models built in code: the part of the format that a small network needs.

A model is a protocol buffer (onnx.proto3 of ONNX 1.14, IR version 8). The `onnx` package would also write it,
but is a dependency of 20 MB for these few messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

_IR_VERSION: Final = 8
_TYPES: Final = {"float32": 1, "int8": 3, "int64": 7}
_INT: Final = 2  # AttributeProto.AttributeType


def model(
    nodes: Sequence[bytes],
    constants: Mapping[str, NDArray[Any]],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    operators: Mapping[str, int],
) -> bytes:
    """A ModelProto of one graph.

    nodes: from `node`, in the order of execution. inputs, outputs: shapes of float32 tensors; a name is a
    variable length. operators: version of each set of operators, "" for ONNX's own.
    """
    graph = b"".join(
        [_field(1, each) for each in nodes]
        + [_field(2, b"graph")]
        + [_field(5, _tensor(name, value)) for name, value in constants.items()]
        + [_field(11, _value(name, shape)) for name, shape in inputs.items()]
        + [_field(12, _value(name, shape)) for name, shape in outputs.items()]
    )
    sets = [_field(8, _field(1, domain) + _number(2, version)) for domain, version in operators.items()]
    return _number(1, _IR_VERSION) + _field(7, graph) + b"".join(sets)


def node(
    operator: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = "", **attributes: int
) -> bytes:
    """A NodeProto; an empty name leaves an input or output out."""
    return b"".join(
        [_field(1, name) for name in inputs]
        + [_field(2, name) for name in outputs]
        + [_field(4, operator)]
        + [_field(5, _field(1, name) + _number(3, n) + _number(20, _INT)) for name, n in attributes.items()]
        + [_field(7, domain)]
    )


def _tensor(name: str, value: NDArray[Any]) -> bytes:
    little = value.astype(value.dtype.newbyteorder("<"), copy=False)
    dims = [_number(1, length) for length in value.shape]
    return b"".join(
        [*dims, _number(2, _TYPES[value.dtype.name]), _field(8, name), _field(9, little.tobytes())]
    )


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    dims = [_field(1, _field(2, n) if isinstance(n, str) else _number(1, n)) for n in shape]
    tensor = _number(1, _TYPES["float32"]) + _field(2, b"".join(dims))
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
