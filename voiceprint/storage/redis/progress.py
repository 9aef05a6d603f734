"""The progress of a change that is written shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from voiceprint.models import Caller, Voiceprint
from voiceprint.storage.arguments import with_progress
from voiceprint.storage.base import Progress

__all__ = ["Item", "progress_over_groups"]

Item = TypeVar("Item", Voiceprint, Caller)


def progress_over_groups(progress: Progress | None) -> Callable[[list[Item]], Iterator[Item]]:
    """`with_progress` for several groups in turn, whose numbers add up."""
    done = 0

    def counted(group: list[Item]) -> Iterator[Item]:
        nonlocal done
        before = done
        yield from with_progress(group, None if progress is None else lambda count: progress(before + count))
        done = before + len(group)

    return counted
