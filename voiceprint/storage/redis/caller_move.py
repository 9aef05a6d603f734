"""Renaming and merging of callers in different shards, which no one change of a Redis Cluster spans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from voiceprint.errors import CallerNotFoundError, StorageUnavailableError
from voiceprint.storage.base import MOST_PRINTS
from voiceprint.storage.caller_changes import refuse_opted_out
from voiceprint.storage.records import CallerRecord
from voiceprint.storage.redis.commit import Committed, PartialTransaction, Task
from voiceprint.storage.redis.reader import Reader

T = TypeVar("T")


class CallerMove:
    """Stores a caller's data under the target's id first, and deletes the caller then.

    After a failure between the two, merge them: `absorb` skips voiceprints that the target has already.
    run: commits tasks. Raises `CallerNotFoundError`.
    """

    def __init__(
        self, reader: Reader, run: Callable[[list[Task[Any]]], list[Committed[Any]]], name: str, target: str
    ) -> None:
        record = reader.caller(name)
        if record is None:
            raise CallerNotFoundError(f"There is no caller {name!r} in the store.")
        self._record, self._target = record, target
        self._reader, self._run = reader, run

    def rename(self) -> CallerRecord:
        """As `Storage.rename`; gives the renamed caller."""

        def copy(transaction: PartialTransaction) -> CallerRecord:
            refuse_opted_out(self._record)
            transaction.refuse_taken(self._target)
            return transaction.copy_of(self._record, self._target)

        return self._moved(copy)

    def merge(self, limit: int) -> tuple[CallerRecord, list[int]]:
        """As `Storage.merge`; gives the merged caller, and the ids of removed voiceprints."""
        return self._moved(
            lambda transaction: transaction.absorb(self._record, transaction.found(self._target), limit)
        )

    def _moved(self, work: Callable[[PartialTransaction], T]) -> T:
        """The result of `work` on the target, once it is committed and the moved caller is deleted."""
        shard = self._reader.shard_of(self._target)
        result: T = self._run([Task(shard, [self._target], work, fresh=MOST_PRINTS)])[0].result
        name = self._record.caller_id
        if not self._run([Task(self._reader.shard_of(name), [name], self._delete)])[0].result:
            raise StorageUnavailableError(
                f"The caller {name!r} was enrolled meanwhile, and is not deleted: merge it into "
                f"{self._target!r}."
            )
        return result

    def _delete(self, transaction: PartialTransaction) -> bool:
        """Delete the moved caller; False for one who has other voiceprints by now."""
        current = transaction.find(self._record.caller_id)
        if current is None:
            return True
        if [one.id for one in current.voiceprints] != [one.id for one in self._record.voiceprints]:
            return False
        transaction.delete(current.caller_id)
        return True
