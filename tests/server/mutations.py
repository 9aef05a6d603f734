"""Conversations that a platform would never hold: mutations of the fixtures."""

from __future__ import annotations

import json
import random
from typing import Any

Messages = list[str | bytes]

_ODD: list[Any] = [
    None,
    True,
    -1,
    1e308,
    10**30,
    "",
    "x" * 5000,
    "\ud7ff\x00",
    [],
    [[]],
    {},
    {"a": {"b": 1}},
    "0",
    "PT-1S",
    "8000.5",
]


def mutated(messages: Messages, seed: int) -> Messages:
    """A copy with one to four faults. seed: of the random choices."""
    chance = random.Random(seed)
    found = list(messages)
    for _ in range(chance.randint(1, 4)):
        chance.choice(_FAULTS)(found, chance)
        if not found:
            break
    return found


def _place(messages: Messages, chance: random.Random) -> int:
    """A place among the messages, mostly early, where the formats differ."""
    last = len(messages) - 1
    return min(last, chance.choice((0, 0, 1, 1, 2, chance.randint(0, last), last)))


def _leave_out(messages: Messages, chance: random.Random) -> None:
    del messages[_place(messages, chance)]


def _repeat(messages: Messages, chance: random.Random) -> None:
    place = _place(messages, chance)
    messages.insert(chance.randint(0, len(messages)), messages[place])


def _cut(messages: Messages, chance: random.Random) -> None:
    place = _place(messages, chance)
    messages[place] = messages[place][: chance.randint(0, len(messages[place]))]


def _end_early(messages: Messages, chance: random.Random) -> None:
    del messages[chance.randint(1, len(messages)) :]


def _noise(messages: Messages, chance: random.Random) -> None:
    place = _place(messages, chance)
    message = messages[place]
    if isinstance(message, bytes):
        messages[place] = chance.randbytes(len(message))
    elif message:
        at = chance.randrange(len(message))
        messages[place] = message[:at] + chance.choice('{}[]",:\u2028\x00é9') + message[at + 1 :]


def _other_kind(messages: Messages, chance: random.Random) -> None:
    place = _place(messages, chance)
    message = messages[place]
    messages[place] = message.encode() if isinstance(message, str) else message.decode("latin-1")


def _odd_value(messages: Messages, chance: random.Random) -> None:
    place = _place(messages, chance)
    message = messages[place]
    if isinstance(message, bytes):
        return
    try:
        parsed = json.loads(message)
    except (ValueError, RecursionError):  # of an earlier fault
        return
    at = parsed
    while isinstance(at, dict) and at:
        name = chance.choice(list(at))
        if chance.random() < 0.5 or not isinstance(at[name], dict):
            at[name] = chance.choice(_ODD)
            break
        at = at[name]
    messages[place] = json.dumps(parsed)


def _lack(messages: Messages, chance: random.Random) -> None:
    place = _place(messages, chance)
    message = messages[place]
    try:
        parsed = json.loads(message)
    except (ValueError, RecursionError):  # audio, or of an earlier fault
        return
    at = parsed
    while isinstance(at, dict) and at:
        name = chance.choice(list(at))
        if chance.random() < 0.5 or not isinstance(at[name], dict):
            del at[name]
            break
        at = at[name]
    messages[place] = json.dumps(parsed)


def _deep(messages: Messages, chance: random.Random) -> None:
    depth = chance.choice((30, 1000, 20_000))
    messages.insert(_place(messages, chance), '{"a":' * depth + "1" + "}" * depth)


def _large(messages: Messages, chance: random.Random) -> None:
    size = chance.choice((70_000, 600_000, 1_100_000))
    large: str | bytes = bytes(size) if chance.random() < 0.5 else json.dumps({"event": "x" * size})
    messages.insert(_place(messages, chance), large)


_FAULTS = (
    _leave_out,
    _repeat,
    _cut,
    _end_early,
    _noise,
    _other_kind,
    _odd_value,
    _odd_value,
    _lack,
    _lack,
    _deep,
    _large,
)
