"""Checks of the arguments of every store, and the paths of the snapshots of its index."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from voiceprint._files import cache_folder
from voiceprint.errors import InvalidArgumentError
from voiceprint.storage.feed import Position, Progress
from voiceprint.validation import check_caller_id, is_integer, shown

DEFAULT_MAX_VOICEPRINTS = 3

T = TypeVar("T")


def check_limit(limit: int | None, default: int = DEFAULT_MAX_VOICEPRINTS) -> int:
    """A limit of voiceprints per caller: an int from 1, or `default` for None."""
    if limit is None:
        return default
    if not is_integer(limit) or limit < 1:
        raise InvalidArgumentError(
            f"The limit of voiceprints per caller is {limit!r}: a whole number from 1 is allowed."
        )
    return int(limit)


def check_page(limit: int) -> int:
    """The size of a page or batch: an int from 1."""
    if not is_integer(limit) or limit < 1:
        raise InvalidArgumentError(f"The page size is {limit!r}: a whole number from 1 is allowed.")
    return int(limit)


def check_ids(ids: Iterable[int]) -> list[int]:
    """Ids of voiceprints as ints, also from numpy integers."""
    try:
        given = list(ids)
        whole = [operator.index(id_) for id_ in given]
    except TypeError as error:
        raise InvalidArgumentError("The ids of voiceprints are whole numbers in a list or array.") from error
    for id_ in given:
        if isinstance(id_, bool):
            raise InvalidArgumentError(f"{id_} is no id of a voiceprint: ids are whole numbers.")
    return whole


def check_caller_ids(caller_ids: Iterable[str]) -> list[str]:
    """Caller ids, each once, in their order."""
    if isinstance(caller_ids, str | bytes) or not isinstance(caller_ids, Iterable):
        raise InvalidArgumentError(f"The caller ids are {shown(caller_ids)}: give a list of them.")
    return list(dict.fromkeys(check_caller_id(caller_id) for caller_id in caller_ids))


def check_space(encoder: object) -> str:
    """The name of an embedding space: a str of 1 character or more."""
    if not isinstance(encoder, str) or not encoder:
        raise InvalidArgumentError(
            f"The embedding space is {shown(encoder)}: give the name of its encoder, see `Storage.spaces`."
        )
    return encoder


def check_after(after: str) -> str:
    """The caller id that a page comes after; "" for the first page."""
    return after if after == "" else check_caller_id(after)


def check_position(since: Position) -> Position:
    """A position to read the change feed from."""
    if not isinstance(since, Position):
        raise InvalidArgumentError(
            f"The position in the feed is a {type(since).__name__}: give a result of `position()`, or START."
        )
    return since


def with_progress(items: list[T], progress: Progress | None) -> Iterator[T]:
    """The items; `progress` is called with the number of finished ones, every 1,000 and at the end."""
    for done, item in enumerate(items, start=1):
        yield item
        if progress is not None and (done % 1_000 == 0 or done == len(items)):
            progress(done)


def cached_snapshot_path(location: str) -> Path:
    """Path of the index snapshot of a store on a server, in the user's cache.

    Raises OSError for a user without a home folder.
    """
    name = hashlib.sha256(location.encode()).hexdigest()[:32]
    return cache_folder() / f"{name}.index"


def snapshot_path_beside(path: Path) -> Path:
    """Path of the index snapshot of a store in one file."""
    return path.with_name(f"{path.name}.index")
