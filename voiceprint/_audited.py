"""The seam of the audit log: operations in progress, and the facts that the pipeline adds to them.

`recording` surrounds an operation, such as a match. Parts deep in the pipeline add the facts that only they
have, such as scores, by `note`; without an operation to record, `note` does nothing. At the end of the
operation, also by an error, the recorder of the store turns its facts into an event.

Both are context variables: threads of `in_thread` and tasks of asyncio inherit the actor, and never share an
operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, Final, NamedTuple, ParamSpec, Protocol, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class Actor(NamedTuple):
    """The person or program on whose behalf operations run, and the id that links them to other systems."""

    name: str | Callable[[], str] | None = None
    correlation_id: str | None = None


class Operation:
    """An operation in progress.

    recorder: of the store. action: one of `voiceprint.privacy.audit.event.ACTIONS`. facts: fields of the
    event so far. covers: actions of nested operations that are part of this one, and get no event of their
    own.
    """

    __slots__ = ("action", "covers", "event_id", "facts", "hits", "recorder")

    def __init__(
        self,
        recorder: Recorder | None,
        action: str,
        facts: dict[str, Any],
        covers: frozenset[str] = frozenset(),
    ) -> None:
        self.recorder = recorder
        self.action = action
        self.facts = facts
        self.covers = covers | {action}
        self.event_id: str | None = None
        self.hits: dict[tuple[str, str], Any] = {}  # of watchlists, by group and caller

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
        """True where a log or a callback receives the events."""

    def record(self, action: str, facts: dict[str, Any], *, failed: bool = False) -> str:
        """Record an event, and return its id.

        failed: the operation has raised an error already, which an error of the recorder must not replace.
        """


class Owner(Protocol):
    """An object with a store, as a recognizer is. The store has an `auditor`, a `Recorder` or None."""

    storage: Any  # its class, `Storage`, is of a higher layer


_operation: ContextVar[Operation | None] = ContextVar("voiceprint_operation", default=None)
_actor: ContextVar[Actor] = ContextVar("voiceprint_actor", default=Actor())  # noqa: B039 - not mutable
_NOTHING: Final[frozenset[str]] = frozenset()


@contextmanager
def recording(
    recorder: Recorder | None, action: str, *, covers: frozenset[str] = _NOTHING, **facts: Any
) -> Iterator[Operation]:
    """Record the operation of the `with` block as one event: its facts, or the class of its error.

    A nested operation on the same store that the outer one covers adds its facts to the outer one.
    """
    outer = _operation.get()
    if outer is not None and outer.recorder is recorder and action in outer.covers:
        outer.note(**facts)
        yield outer
        return
    operation = Operation(recorder, action, facts, covers)
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


def note_first(**facts: Any) -> None:
    """As `note`, without replacing facts that are there: those of the first part count."""
    operation = _operation.get()
    if operation is not None:
        operation.facts.update({name: value for name, value in facts.items() if name not in operation.facts})


def record_results(
    recorder: Recorder | None, action: str, results: Iterable[tuple[object, object]], **facts: Any
) -> None:
    """Record an event for each (caller id, result) of a list: the class of an error, the audio of a print."""
    if recorder is None or not recorder.is_active:
        return
    for caller, result in results:
        name = caller if isinstance(caller, str) else None
        failed = isinstance(result, BaseException)
        more: dict[str, Any] = {"error": type(result).__name__} if failed else {}
        provenance: Any = getattr(result, "provenance", None)
        if provenance is not None:
            more = {"speech_s": provenance.net_speech_s, "quality": provenance.quality}
        recorder.record(action, {"caller": name} | facts | more, failed=failed)


@contextmanager
def acting_as(actor: str | Callable[[], str], correlation_id: str | None = None) -> Iterator[None]:
    """Within it, events name this actor. Without a correlation id, that of the surrounding block stays.

    actor: also a function that gives the name, called for an event: a look-up of a user opens a socket.
    """
    outer = _actor.get()
    token = _actor.set(Actor(actor, outer.correlation_id if correlation_id is None else correlation_id))
    try:
        yield
    finally:
        _actor.reset(token)


def current_actor() -> Actor:
    """The actor of this thread or task."""
    actor = _actor.get()
    return actor._replace(name=actor.name()) if callable(actor.name) else actor


def audited(action: str, *, caller: bool = False) -> Callable[[F], F]:
    """Record each call of a method of an `Owner` as an operation.

    An answer with an `event_id` gets that of the event. caller: whether the first argument is a caller id.
    """

    def decorate(method: F) -> F:
        @wraps(method)
        def recorded(self: Owner, /, *args: Any, **kwargs: Any) -> Any:
            recorder: Recorder | None = self.storage.auditor
            if recorder is None or not recorder.is_active:
                return method(self, *args, **kwargs)
            named = kwargs.get("caller_id", args[0] if args else None) if caller else None
            with recording(recorder, action) as operation:
                if isinstance(named, str):
                    operation.note(caller=named)
                answer = method(self, *args, **kwargs)
                note_answer(operation, answer)
            return finished(operation, answer)

        return cast(F, recorded)  # ParamSpec cannot express the overloads of `identify`

    return decorate


def audited_store(
    action: str, *, argument: int = 0, detail: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Record each call of a function of a store as an operation, such as an export.

    argument: the place of the store among the arguments. The event has the number of callers of the answer,
    and the name of a file among the arguments.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def recorded(*args: P.args, **kwargs: P.kwargs) -> R:
            store: Any = args[argument]
            paths = [value for value in (*args, *kwargs.values()) if isinstance(value, Path)]
            file = paths[0].name if paths else None
            with recording(store.auditor, action, file=file, detail=detail) as operation:
                answer = function(*args, **kwargs)
                operation.note(count=answer if isinstance(answer, int) else getattr(answer, "callers", None))
            return answer

        return recorded

    return decorate


def audited_verb(action: str, *, detail: str | None = None) -> Callable[[F], F]:
    """Record each call of a method of a store as an operation on the caller of the first argument, if a text.

    detail: a word before the second argument, another caller id, as the detail of the event. The event has
    the number in the answer, such as that of removed voiceprints.
    """

    def decorate(method: F) -> F:
        @wraps(method)
        def recorded(self: Any, caller_id: Any, *args: Any, **kwargs: Any) -> Any:
            caller = caller_id if isinstance(caller_id, str) else None
            with recording(self.auditor, action, caller=caller) as operation:
                if detail is not None:
                    operation.note(
                        detail=f"{detail} {args[0] if args else next(iter(kwargs.values()), None)}"
                    )
                answer = method(self, caller_id, *args, **kwargs)
                if isinstance(answer, int):
                    operation.note(count=int(answer))
            return answer

        return cast(F, recorded)

    return decorate


def note_answer(operation: Operation, answer: object) -> None:
    """Note the verdict of an answer, with its reasons and watchlist hits."""
    note_hits(operation, answer)
    for name in ("verdict", "reasons", "spoof_score"):
        value = getattr(answer, name, None)
        if value not in (None, ()):
            operation.facts[name] = value


def note_hits(operation: Operation, answer: object) -> None:
    """Note the watchlist hits of an answer, each caller of a group once."""
    for hit in getattr(answer, "watch_hits", ()):
        operation.hits.setdefault((hit.group, hit.caller_id), hit)


def finished(operation: Operation, answer: R) -> R:
    """The answer of an operation with the id of its event, once its watchlist hits are events too."""
    if operation.event_id is None or operation.recorder is None:
        return answer
    for hit in operation.hits.values():
        operation.recorder.record(
            "watch_hit",
            {
                "caller": hit.caller_id,
                "group": hit.group,
                "verdict": "accepted",
                "similarity": hit.similarity,
                "llr": hit.llr,
                "fpir": hit.fpir,
                "limit": hit.target,
                "about": operation.event_id,
            },
        )
    if not hasattr(answer, "event_id"):
        return answer
    copy: Callable[..., R] | None = getattr(answer, "model_copy", None)
    if copy is not None:
        return copy(update={"event_id": operation.event_id})
    answer.event_id = operation.event_id
    return answer
