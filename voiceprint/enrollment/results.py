"""`OrderedResults`: stores the voiceprints of a long list some dozens at a time, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

from voiceprint.enrollment.writer import Stored
from voiceprint.errors import VoiceprintError
from voiceprint.models import Provenance, Voiceprint

if TYPE_CHECKING:
    from voiceprint.audio import Recording

STORED_TOGETHER: Final = 64
"""Enrollments of a long list in one change of the store: a crash loses at most these, and a store that writes
all of its records with every change writes them rarely."""

_WAITING_TOGETHER: Final = 1024
"""Results that wait for a voiceprint before them to be stored: a long run of errors would fill the memory.
Halved, a list of many errors is stored in smaller changes."""

R = TypeVar("R")


class NewVoiceprint(NamedTuple):
    """A voiceprint that is not stored yet, and the quality score of its audio, 0 to 1.

    secondary: the same audio's voiceprint of the secondary encoder.
    """

    voiceprint: Voiceprint
    score: float
    secondary: Voiceprint | None = None


class SecondaryEnroller(Protocol):
    """Enrolls what is enrolled with a secondary encoder too; failures are logged only."""

    def voiceprint(self, caller_id: str, recording: Recording, provenance: Provenance) -> Voiceprint | None:
        """The voiceprint of a recording, None where the encoder fails."""

    def store(self, voiceprints: Sequence[Voiceprint]) -> int:
        """Store voiceprints of callers who are enrolled; returns the number stored."""


class OrderedResults(Generic[R]):
    """Takes the results of a list in order: voiceprints to store, and other results, such as errors.

    store: stores voiceprints, by their place in the list, in one change, and returns the results in order.
    take: called with the result of each place, in order, as soon as all before it are stored.
    choose: selects, of consecutive voiceprints of one caller, those to store, and errors for the others; None
    stores all. secondary: stores the secondary voiceprints of what was stored.

    At most `STORED_TOGETHER` voiceprints wait to be stored, beside those of the caller to choose from.
    """

    def __init__(
        self,
        store: Callable[[dict[int, Voiceprint]], Sequence[Stored]],
        take: Callable[[Stored | R], None],
        choose: Callable[[list[NewVoiceprint]], list[Stored]] | None = None,
        secondary: SecondaryEnroller | None = None,
    ) -> None:
        self._store, self._take, self._choose, self._secondary = store, take, choose, secondary
        self._results: deque[Stored | R | None] = deque()  # not taken yet; None: not stored yet
        self._first = 0  # the place of the first of them
        self._of_caller: dict[int, NewVoiceprint] = {}  # to choose from, by place
        self._to_store: dict[int, Voiceprint] = {}  # by place
        self._of_secondary: dict[int, Voiceprint] = {}  # by place

    def add(self, result: NewVoiceprint | VoiceprintError | R) -> None:
        """Add the result of the next place."""
        place = self._first + len(self._results)
        if not isinstance(result, NewVoiceprint):
            self._results.append(result)
            if len(self._results) >= _WAITING_TOGETHER:
                self._store_all()
            self._take_ready()
            return
        self._results.append(None)
        if result.secondary is not None:
            self._of_secondary[place] = result.secondary
        if self._choose is None:
            self._to_store[place] = result.voiceprint
        else:
            others = self._of_caller.values()
            if any(other.voiceprint.caller_id != result.voiceprint.caller_id for other in others):
                self._end_caller()
            self._of_caller[place] = result
        if len(self._to_store) >= STORED_TOGETHER:
            self._store_all()

    def flush(self) -> None:
        """Store the rest."""
        self._end_caller()
        self._store_all()

    def _end_caller(self) -> None:
        if self._choose is None or not self._of_caller:
            return
        for place, result in zip(self._of_caller, self._choose([*self._of_caller.values()]), strict=True):
            if isinstance(result, Voiceprint):
                self._to_store[place] = result
            else:
                self._results[place - self._first] = result
                self._of_secondary.pop(place, None)
        self._of_caller.clear()

    def _store_all(self) -> None:
        if self._to_store:
            # Reset first, so that an error does not store them twice.
            voiceprints, self._to_store = self._to_store, {}
            others = []
            for place, result in zip(voiceprints, self._store(voiceprints), strict=True):
                self._results[place - self._first] = result
                other = self._of_secondary.pop(place, None)
                if other is not None and isinstance(result, Voiceprint):
                    others.append(other)
            if self._secondary is not None and others:
                self._secondary.store(others)
        self._take_ready()

    def _take_ready(self) -> None:
        while self._results and (result := self._results[0]) is not None:
            self._results.popleft()
            self._first += 1
            self._take(result)
