"""`Query`: the question of one identification, checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from voiceprint.consent import check_groups
from voiceprint.errors import InvalidArgumentError
from voiceprint.identification.groups import EVERYONE, Scope
from voiceprint.validation import check_caller_id, is_integer, is_number, shown


class Query(NamedTuple):
    """The number of callers to return, the threshold of acceptance, and the callers to compare with.

    k: callers, from 1. threshold: 0 to 1; None takes the configured rule. candidates: caller ids; None for
    all callers. ignored: caller ids to exclude. scope: the groups to search. watch: groups to search besides,
    whatever the rest of the query says.
    """

    k: int = 1
    threshold: float | None = None
    candidates: list[str] | None = None
    ignored: list[str] = []  # noqa: RUF012 - never changed
    scope: Scope = EVERYONE
    watch: tuple[str, ...] = ()

    @classmethod
    def checked(
        cls,
        k: Any,
        threshold: Any,
        candidates: Any,
        ignore: Any,
        groups: Any = None,
        not_groups: Any = (),
        watch: Any = (),
    ) -> Query:
        """The query of a user's arguments. Raises `InvalidArgumentError`."""
        return cls(
            check_count(k),
            None if threshold is None else check_threshold(threshold),
            None if candidates is None else check_ids(candidates, "candidates"),
            check_ids(ignore, "ignore"),
            Scope(None if groups is None else check_groups(groups), check_groups(not_groups)),
            check_groups(watch),
        )


def check_count(k: Any) -> int:
    """`k` as an int from 1."""
    if not is_integer(k) or k < 1:
        raise InvalidArgumentError(f"k is {shown(k)}: a whole number from 1 is allowed.")
    return int(k)


def check_threshold(threshold: Any) -> float:
    """The threshold as a float from 0 to 1."""
    if not is_number(threshold) or not 0 <= threshold <= 1:
        raise InvalidArgumentError(f"The threshold is {shown(threshold)}: a number from 0 to 1 is allowed.")
    return float(threshold)


def check_ids(ids: Any, name: str) -> list[str]:
    """The caller ids of an argument, without repetitions. name: of the argument, for the error."""
    if isinstance(ids, str | bytes | bytearray) or not isinstance(ids, Iterable):
        raise InvalidArgumentError(f"{name} is one {type(ids).__name__}: give a list of caller ids.")
    return [*dict.fromkeys(check_caller_id(caller_id) for caller_id in ids)]
