"""Deletes callers who have not called for a long time, as data protection law requires, and voiceprints of an
encoder that is no longer used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from voiceprint.errors import InvalidArgumentError
from voiceprint.models import Caller
from voiceprint.retention import Expiry, parse_period
from voiceprint.storage.arguments import check_space
from voiceprint.storage.base import DEFAULT_PAGE, Progress, Storage
from voiceprint.validation import shown

__all__ = ["PruneReport", "SpacePruneReport", "parse_period", "prune_callers", "prune_space"]


@dataclass(frozen=True)
class PruneReport:
    """The callers who were pruned, or would be. not_seen_since: the limit for `last_seen`."""

    not_seen_since: str
    caller_ids: tuple[str, ...]
    voiceprints: int


def prune_callers(
    storage: Storage, not_seen_for: timedelta, *, dry_run: bool = True, progress: Progress | None = None
) -> PruneReport:
    """Delete the callers whose `last_seen` is longer ago than `not_seen_for`.

    dry_run: only report them; the default, as a deletion cannot be undone. A caller who calls meanwhile
    stays, and so does one who has opted out, as the refusal must not be forgotten. `created_at` stands in
    for a missing `last_seen`; with neither, the caller stays. `progress` is called with the number of callers
    read.
    """
    if not_seen_for is None:
        raise InvalidArgumentError("The period is None: a timedelta above zero is allowed.")
    limit = Expiry(not_seen_for).seen_limit
    assert limit is not None  # noqa: S101  for the types
    pruned: list[str] = []
    voiceprints = 0
    with storage.removing_many():
        for done, caller in enumerate(storage.iter_callers(), start=1):
            seen = caller.last_seen or caller.created_at
            if seen is not None and seen < limit and caller.opt_out is None:
                removed = len(caller.voiceprints)
                if not dry_run:
                    removed = storage.delete(caller.caller_id, unless_seen_since=limit)
                if dry_run or removed or storage.get(caller.caller_id) is None:
                    pruned.append(caller.caller_id)
                    voiceprints += removed
            if progress is not None:
                progress(done)
    return PruneReport(limit, tuple(pruned), voiceprints)


@dataclass(frozen=True)
class SpacePruneReport:
    """The voiceprints of one embedding space that were pruned, or would be.

    encoder: name of the space. voiceprints: their number. callers: number of callers who lose them and have
    voiceprints of another space. deleted_callers: ids of callers who had no others, and were deleted.
    kept_callers: ids of callers who have no others, and keep theirs.
    """

    encoder: str
    voiceprints: int
    callers: int
    deleted_callers: tuple[str, ...]
    kept_callers: tuple[str, ...]


def prune_space(
    storage: Storage,
    encoder: str,
    *,
    delete_callers: bool = False,
    dry_run: bool = True,
    progress: Progress | None = None,
) -> SpacePruneReport:
    """Remove all voiceprints of one embedding space, such as those of an earlier encoder.

    Callers without voiceprints of another space keep theirs, unless `delete_callers` deletes these callers;
    one who is enrolled in another space meanwhile stays. dry_run: only report; the default, as a removal
    cannot be undone. `progress` is called with the number of callers read. Raises `InvalidArgumentError` for
    a space of which the store has no voiceprints.
    """
    spaces = storage.spaces()
    if check_space(encoder) not in spaces:
        named = ", ".join(f"{count:,} of {space!r}" for space, count in sorted(spaces.items())[:5])
        raise InvalidArgumentError(
            f"The store has no voiceprints of the space {shown(encoder)}: it has {named or 'none at all'}."
        )
    callers = voiceprints = done = 0
    deleted: list[str] = []
    kept: list[str] = []
    with storage.removing_many():
        for page in _pages(storage):
            counts = {caller.caller_id: _count(caller, encoder) for caller in page}
            only = {one.caller_id for one in page if 0 < counts[one.caller_id] == len(one.voiceprints)}
            pruned = [
                name for name, count in counts.items() if count and (delete_callers or name not in only)
            ]
            if dry_run:
                voiceprints += sum(counts[name] for name in pruned)
            elif pruned:
                voiceprints += storage.delete_voiceprints(
                    pruned, encoder=encoder, delete_callers=delete_callers
                )
            # Others may be enrolled in another space meanwhile, and lose only these voiceprints.
            gone = {name for name in only.intersection(pruned) if dry_run or storage.get(name) is None}
            deleted += sorted(gone)
            kept += sorted(only.difference(pruned))
            callers += len(pruned) - len(gone)
            done += len(page)
            if progress is not None:
                progress(done)
    return SpacePruneReport(encoder, voiceprints, callers, tuple(deleted), tuple(kept))


def _pages(storage: Storage) -> Iterator[list[Caller]]:
    callers = storage.iter_callers()
    while page := list(islice(callers, DEFAULT_PAGE)):
        yield page


def _count(caller: Caller, encoder: str) -> int:
    return sum(print_.encoder == encoder for print_ in caller.voiceprints)
