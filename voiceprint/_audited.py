"""The seam of the audit log: operations in progress, and the facts that the pipeline adds to them.

`recording` surrounds an operation, such as a match. Parts deep in the pipeline add the facts that only they
have, such as scores, by `note`; without an operation to record, `note` does nothing. At the end of the
operation, also by an error, the recorder of the store turns its facts into an event.

Both are context variables: threads of `in_thread` and tasks of asyncio inherit the actor, and never share an
operation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Protocol


class Actor(NamedTuple):
    """The person or program on whose behalf operations run, and the id that links them to other systems."""

    name: str | None = None
    correlation_id: str | None = None


class Operation:
    """An operation in progress.

    action: one of `voiceprint.privacy.audit.event.ACTIONS`. facts: fields of the event so far.
    covers: actions of nested operations that are part of this one, and get no event of their own.
    """

    __slots__ = ("action", "covers", "event_id", "facts")

    def __init__(self, action: str, facts: dict[str, Any], covers: frozenset[str] = frozenset()) -> None:
        self.action = action
        self.facts = facts
        self.covers = covers | {action}
        self.event_id: str | None = None

    def note(self, **facts: Any) -> None:
        """Add facts; a later value of a fact replaces the earlier."""
        self.facts.update(facts)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within it, `note` adds to this operation."""
        token = _operation.set(self)
        try:
            yield
        finally:
            _operation.reset(token)


class Recorder(Protocol):
    """Takes the events of a store."""

    @property
    def is_active(self) -> bool:
        """Whether anyone takes events."""

    def record(self, action: str, facts: dict[str, Any], *, failed: bool = False) -> str:
        """Record an event, and return its id.

        failed: the operation has raised an error already, which an error of the recorder must not replace.
        """


_operation: ContextVar[Operation | None] = ContextVar("voiceprint_operation", default=None)
_actor: ContextVar[Actor] = ContextVar("voiceprint_actor", default=Actor())  # noqa: B039 - not mutable
_NOTHING: Final[frozenset[str]] = frozenset()


@contextmanager
def recording(
    recorder: Recorder | None, action: str, *, covers: frozenset[str] = _NOTHING, **facts: Any
) -> Iterator[Operation]:
    """Record the operation of the `with` block as one event: its facts, or the class of its error.

    A nested operation that the outer one covers adds its facts to the outer one.
    """
    outer = _operation.get()
    if outer is not None and action in outer.covers:
        outer.note(**facts)
        yield outer
        return
    operation = Operation(action, facts, covers)
    if recorder is None or not recorder.is_active:
        yield operation
        return
    try:
        with operation.entered():
            yield operation
    except BaseException as error:  # also Ctrl-C: the operation was begun
        operation.note(error=type(error).__name__)
        recorder.record(action, operation.facts, failed=True)
        raise
    operation.event_id = recorder.record(action, operation.facts)


def current(action: str | None = None) -> Operation | None:
    """The operation to which `note` adds facts; with an `action`, only an operation of this action."""
    operation = _operation.get()
    return operation if operation is not None and action in (None, operation.action) else None


def note(**facts: Any) -> None:
    """Add facts to the operation in progress, if there is one."""
    operation = _operation.get()
    if operation is not None:
        operation.facts.update(facts)


def record_results(
    recorder: Recorder | None, action: str, results: Iterable[tuple[object, object]], **facts: Any
) -> None:
    """Record an event for each (caller id, result) of a list; of a result that is an error, its class."""
    if recorder is None or not recorder.is_active:
        return
    for caller, result in results:
        name = caller if isinstance(caller, str) else None
        failed = isinstance(result, BaseException)
        more = {"error": type(result).__name__} if failed else {}
        recorder.record(action, {"caller": name} | facts | more, failed=failed)


@contextmanager
def acting_as(actor: str, correlation_id: str | None = None) -> Iterator[None]:
    """Within it, events name this actor. Without a correlation id, that of the surrounding block stays."""
    outer = _actor.get()
    token = _actor.set(Actor(actor, outer.correlation_id if correlation_id is None else correlation_id))
    try:
        yield
    finally:
        _actor.reset(token)


def current_actor() -> Actor:
    """The actor of this thread or task."""
    return _actor.get()
