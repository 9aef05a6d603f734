"""`event_filter`: the conditions of a search of the audit log."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from voiceprint.errors import InvalidArgumentError
from voiceprint.privacy.audit.event import ACTIONS
from voiceprint.validation import shown

__all__ = ["event_filter"]


def event_filter(
    *,
    actions: Iterable[str] = (),
    caller: str | None = None,
    actor: str | None = None,
    verdict: str | None = None,
    correlation_id: str | None = None,
    event_id: str | None = None,
    failed: bool = False,
    since: str | None = None,
    until: str | None = None,
) -> Callable[[dict[str, Any]], bool]:
    """A function that says whether the fields of a line fulfill all conditions.

    actions: any of these; empty for all. event_id: the event of this id, and the feedback to it. failed:
    operations that ended with an error. since, until: ISO 8601 UTC with a `Z`; `until` is excluded. None is
    no condition. Raises `InvalidArgumentError` for an unknown action.
    """
    wanted = {*actions}
    unknown = sorted(wanted - {*ACTIONS})
    if unknown:
        raise InvalidArgumentError(
            f"There is no action {shown(unknown[0])}. The actions are: {', '.join(ACTIONS)}."
        )
    conditions = {"caller": caller, "actor": actor, "verdict": verdict, "correlation_id": correlation_id}
    equal = {name: value for name, value in conditions.items() if value is not None}

    def accepts(fields: dict[str, Any]) -> bool:
        return (
            all(fields.get(name) == value for name, value in equal.items())
            and (not wanted or fields.get("action") in wanted)
            and (not failed or "error" in fields)
            and (event_id is None or event_id in (fields.get("event_id"), fields.get("about")))
            and (since is None or str(fields.get("time")) >= since)
            and (until is None or str(fields.get("time")) < until)
        )

    return accepts
