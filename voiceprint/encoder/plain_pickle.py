"""A reader of the pickles in a file of weights that runs none of their code.

Pickles are programs. `PlainPickle` implements the few instructions that such a file needs: it builds numbers,
texts, tuples, lists and dicts, and records a call as a `Call` without making it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, BinaryIO, Final, NamedTuple

_MAX_PICKLE_BYTES: Final = 1 << 16  # the file's longest pickle has 6 KB
_MAX_INSTRUCTIONS: Final = 1 << 20  # of a pickle; the file's largest has some 2,000


class WrongFileError(Exception):
    """The file is not a file of weights; the message says why."""


class Call(NamedTuple):
    """A call in the file, which is not made."""

    function: str
    arguments: tuple[Any, ...]


class TensorStorage(NamedTuple):
    """A storage that the file refers to: its name, and the number of its float32 values."""

    name: str
    length: int


class _Function(NamedTuple):
    name: str


def load_pickle(file: BinaryIO) -> Any:
    """Read the pickle at the position of the file, which moves to its end. Raises `WrongFileError`."""
    start = file.tell()
    pickle = PlainPickle(file.read(_MAX_PICKLE_BYTES))
    try:
        value = pickle.value()
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        # The stack does not hold the operands of an instruction.
        raise WrongFileError(f"its pickle at {start} cannot be read: {type(error).__name__}") from error
    file.seek(start + pickle.position)
    return value


class _Mark:
    """The mark on the stack below the items of a tuple, list or dict."""


class PlainPickle:
    """Interprets one pickle."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def value(self) -> Any:
        """The value that the pickle builds."""
        for _ in range(_MAX_INSTRUCTIONS):
            code = self._read(1)
            if code == b".":
                (value,) = self._stack
                return value
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise WrongFileError(f"its pickle holds the instruction {code!r}, which weights do not need")
            instruction(self)
        raise WrongFileError("its pickle does not end")

    def _read(self, count: int) -> bytes:
        read = self._content[self.position : self.position + count]
        if len(read) != count:
            raise WrongFileError("its pickle has no end")
        self.position += count
        return read

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._read(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self._content.index(b"\n", self.position)
        return self._read(end + 1 - self.position)[:-1].decode("ascii")

    def _items(self) -> list[Any]:
        """Pop the items above the last mark, and the mark."""
        for mark in range(len(self._stack) - 1, -1, -1):
            if self._stack[mark] is _Mark:
                items = self._stack[mark + 1 :]
                del self._stack[mark:]
                return items
        raise WrongFileError("its pickle has no mark where it needs one")

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise WrongFileError("its pickle fills a list or dict that it has not built")
        return self._stack[-1]

    # The instructions, in the order of the table below

    def _protocol(self) -> None:
        if self._read(1) != b"\x02":
            raise WrongFileError("its pickle has another protocol than 2")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _long(self) -> None:
        self._push(int.from_bytes(self._read(self._number("<B")), "little", signed=True))

    def _text(self) -> None:
        self._push(self._read(self._number("<I")).decode("utf-8"))

    def _tuple(self, count: int) -> None:
        items = [self._stack.pop() for _ in range(count)]
        self._push(tuple(reversed(items)))

    def _fill_list(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _fill_dict(self, items: list[Any]) -> None:
        keys = items[::2]
        if not all(
            isinstance(key, str | int) for key in keys
        ):  # hashing a deeply nested tuple may take forever
            raise WrongFileError("its pickle holds a dict with other keys than texts and numbers")
        self._top(dict).update(zip(keys, items[1::2], strict=True))

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._fill_dict([key, value])

    def _memoize(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def _function(self) -> None:
        self._push(_Function(f"{self._line()} {self._line()}"))

    def _call(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Function) or not isinstance(arguments, tuple):
            raise WrongFileError("its pickle calls a value that is not a function")
        if function.name == "collections OrderedDict" and arguments == ():
            self._push({})
        elif function.name == "torch._utils _rebuild_tensor_v2":
            self._push(Call(function.name, arguments))
        else:
            raise WrongFileError(f"its pickle calls {function.name[:80]!r}, which weights do not need")

    def _build(self) -> None:
        # Sets an attribute of a dict, `_metadata`, which is not needed.
        self._stack.pop()
        self._top(dict)

    def _storage(self) -> None:
        kind, function, name, _, count, *_ = self._stack.pop()
        if kind != "storage" or function != _Function("torch FloatStorage"):
            raise WrongFileError("it holds other numbers than float32")
        if type(count) is not int or not isinstance(name, str):
            raise WrongFileError("a storage has no size")
        self._push(TensorStorage(name, count))


_INSTRUCTIONS: Final[dict[bytes, Callable[[PlainPickle], None]]] = {
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
    b"q": lambda pickle: pickle._memoize(pickle._number("<B")),
    b"r": lambda pickle: pickle._memoize(pickle._number("<I")),
    b"h": lambda pickle: pickle._push(pickle._memo[pickle._number("<B")]),
    b"j": lambda pickle: pickle._push(pickle._memo[pickle._number("<I")]),
    b"c": lambda pickle: pickle._function(),
    b"R": lambda pickle: pickle._call(),
    b"b": lambda pickle: pickle._build(),
    b"Q": lambda pickle: pickle._storage(),
}
