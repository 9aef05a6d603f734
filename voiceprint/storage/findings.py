"""Findings that the checks of several stores have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from voiceprint.models import Finding
from voiceprint.storage.records import CallerRecord

__all__ = ["EmbeddingLengths", "over_limit"]


def over_limit(caller: CallerRecord, limit: int) -> Iterator[Finding]:
    """A finding for each embedding space in which the caller has more than `limit` voiceprints."""
    for space, count in Counter(print_.encoder for print_ in caller.voiceprints).items():
        if count > limit:
            yield Finding(
                code="too_many_voiceprints",
                place=f"caller {caller.caller_id!r}",
                message=f"{count} voiceprints of the space {space!r}, and {limit} are the limit: the next "
                "enrollment in this space removes the oldest.",
            )


class EmbeddingLengths:
    """Counts the voiceprints of each embedding space by the length of their embeddings, which must be one."""

    def __init__(self) -> None:
        # By space, then by length: the number of voiceprints, and the lowest id.
        self._found: dict[str, dict[int, tuple[int, int]]] = {}

    def add(self, space: str, length: int, id_: int, count: int = 1) -> None:
        """Add `count` voiceprints, of which `id_` is the lowest id; length: values of an embedding."""
        lengths = self._found.setdefault(space, {})
        before, lowest = lengths.get(length, (0, id_))
        lengths[length] = before + count, min(lowest, id_)

    def findings(self) -> Iterator[Finding]:
        """A finding for each space with several lengths."""
        for space, lengths in sorted(self._found.items()):
            if len(lengths) > 1:
                (usual, _), *others = sorted(lengths.items(), key=lambda item: item[1], reverse=True)
                count = sum(number for _, (number, _) in others)
                shown = ", ".join(f"voiceprint {id_} has {length}" for length, (_, id_) in others[:5])
                yield Finding(
                    code="dimension",
                    place=f"the space {space[:100]!r}",
                    message=f"Its embeddings have {usual} values, and {count} of them another number "
                    f"({shown}): delete their callers and enroll anew.",
                )
