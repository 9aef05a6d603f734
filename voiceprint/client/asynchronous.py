"""`AsyncClient`: the verbs of the recognizer over HTTP, for event loops."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

import httpx

from voiceprint.audio import Encoding
from voiceprint.client import caller_verbs, service_verbs, upkeep_verbs, voice_verbs
from voiceprint.client.answers import Page
from voiceprint.client.calls import Call
from voiceprint.client.sending import KEEP_ALIVE_S, Sending, Target, headers_of
from voiceprint.client.synchronous import named_after
from voiceprint.client.uploads import Audio
from voiceprint.embedder import EmbeddingLike
from voiceprint.models import Caller, DeletionReceipt, Identification, SeparatedVoice
from voiceprint.storage.base import DEFAULT_PAGE

if TYPE_CHECKING:
    from typing_extensions import Self

P = ParamSpec("P")
T = TypeVar("T")


def awaited(
    verb: Callable[P, Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """The method of `AsyncClient` that sends the call of a verb."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._send(verb(*args, **kwargs))

    return named_after(verb, method)


class AsyncClient:
    """`Client` for event loops: the same arguments and methods, to be awaited.

    Used in one event loop. `callers` and `members` are asynchronous iterators. A cancelled change may have
    taken place: the answer is then not read.
    """

    def __init__(
        self,
        url: str,
        key: str,
        gallery: str = "default",
        *,
        timeout_s: float = 30.0,
        retries: int = 3,
        connections: int = 20,
        verify: bool | ssl.SSLContext = True,
        embeddings: bool = False,
    ) -> None:
        self._target = Target.checked(url, gallery, timeout_s, retries, embeddings=embeddings)
        limits = httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEP_ALIVE_S
        )
        self._http = httpx.AsyncClient(headers=headers_of(key), limits=limits, verify=verify)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._target.base!r}, gallery={self._target.gallery!r})"

    def with_gallery(self, gallery: str) -> Self:
        """A client for another gallery of the service, with the same key and connections."""
        twin = object.__new__(type(self))
        twin._target, twin._http = self._target.with_gallery(gallery), self._http
        return twin

    async def aclose(self) -> None:
        """Close the connections. May be called twice."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _send(self, call: Call[T]) -> T:
        http, sending = self._http, Sending(call, self._target)
        sending.check_open(http)
        while True:
            try:
                response = await http.send(sending.request(http))
            except httpx.TransportError as error:
                wait_s: float | None = sending.after_error(error)
            else:
                wait_s = sending.after_answer(response)
                if wait_s is None:
                    answer: T = sending.read(response)
                    return answer
            await asyncio.sleep(wait_s or 0.0)

    async def _pages(self, page_after: Callable[[str], Call[Page]]) -> AsyncIterator[Caller]:
        """The callers of all pages. page_after: the call of the page after a caller id."""
        after: str | None = ""
        while after is not None:
            page = await self._send(page_after(after))
            for caller in page.callers:
                yield caller
            after = page.next

    # Audio

    get_embedding = awaited(voice_verbs.get_embedding)
    check_enrollment = awaited(voice_verbs.check_enrollment)
    enroll_caller = awaited(voice_verbs.enroll_caller)
    match_caller = awaited(voice_verbs.match_caller)
    verify_caller = awaited(voice_verbs.verify_caller)

    @overload
    async def identify(
        self,
        audio_buffer: Audio | None = None,
        k: int = 5,
        *,
        embedding: EmbeddingLike | None = None,
        encoder: str | None = None,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
        threshold: float | None = None,
        candidates: Iterable[str] | None = None,
        ignore: Iterable[str] = (),
        groups: Iterable[str] | None = None,
        not_groups: Iterable[str] = (),
        watch: Iterable[str] = (),
        separate: Literal[False] = False,
    ) -> Identification: ...

    @overload
    async def identify(
        self,
        audio_buffer: Audio,
        k: int = 5,
        *,
        sample_rate: int | None = None,
        encoding: Encoding = "pcm",
        channel: int | None = None,
        channels: int = 1,
        threshold: float | None = None,
        candidates: Iterable[str] | None = None,
        ignore: Iterable[str] = (),
        groups: Iterable[str] | None = None,
        not_groups: Iterable[str] = (),
        watch: Iterable[str] = (),
        separate: Literal[True],
    ) -> list[SeparatedVoice]: ...

    async def identify(self, *args: Any, **kwargs: Any) -> Identification | list[SeparatedVoice]:
        """See `voice_verbs.identify`, whose docstring this gets."""
        found: Identification | list[SeparatedVoice] = await self._send(voice_verbs.identify(*args, **kwargs))
        return found

    named_after(voice_verbs.identify, identify)

    # Callers

    get_caller = awaited(caller_verbs.get_caller)
    caller_state = awaited(caller_verbs.caller_state)
    delete_voiceprint = awaited(caller_verbs.delete_voiceprint)
    update_metadata = awaited(caller_verbs.update_metadata)
    rename_caller = awaited(caller_verbs.rename_caller)
    merge_callers = awaited(caller_verbs.merge_callers)
    set_consent = awaited(caller_verbs.set_consent)
    opt_in = awaited(caller_verbs.opt_in)

    def callers(self) -> AsyncIterator[Caller]:
        """All callers, in the order of their ids, read from the service a page at a time."""
        return self._pages(lambda after: caller_verbs.callers(after=after))

    async def find_callers(
        self, metadata: Mapping[str, Any], *, after: str = "", limit: int = DEFAULT_PAGE
    ) -> list[Caller]:
        """The callers whose metadata has these values, in the order of their ids; at most `limit`.

        As `OpusAgentVoiceRecognizer.find_callers`.
        """
        found: list[Caller] = []
        next_id: str | None = after
        while next_id is not None and len(found) < limit:
            page = await self._send(
                caller_verbs.find_callers(metadata, after=next_id, limit=limit - len(found))
            )
            found += page.callers
            next_id = page.next
        return found

    @overload
    async def delete_caller(self, caller_id: str, *, receipt: Literal[False] = False) -> int: ...

    @overload
    async def delete_caller(self, caller_id: str, *, receipt: Literal[True]) -> DeletionReceipt: ...

    async def delete_caller(self, caller_id: str, *, receipt: bool = False) -> int | DeletionReceipt:
        """Remove a caller with all voiceprints and metadata; return the number of voiceprints.

        receipt: wait until the disk has followed, search every file of the store for remains, and return a
        `DeletionReceipt`; raises `CallerNotFoundError` for an unknown caller.
        """
        if receipt:
            return await self._send(caller_verbs.delete_with_receipt(caller_id))
        return await self._send(caller_verbs.delete_caller(caller_id))

    @overload
    async def opt_out(
        self,
        caller_id: str,
        *,
        reason: str | None = None,
        by: str | None = None,
        receipt: Literal[False] = False,
    ) -> int: ...

    @overload
    async def opt_out(
        self, caller_id: str, *, reason: str | None = None, by: str | None = None, receipt: Literal[True]
    ) -> DeletionReceipt: ...

    async def opt_out(
        self, caller_id: str, *, reason: str | None = None, by: str | None = None, receipt: bool = False
    ) -> int | DeletionReceipt:
        """Erase all voiceprints and data of a caller who refuses, and note the refusal; return the number of
        voiceprints, or with `receipt` a `DeletionReceipt`.

        As `OpusAgentVoiceRecognizer.opt_out`.
        """
        if receipt:
            return await self._send(caller_verbs.opt_out_with_receipt(caller_id, reason=reason, by=by))
        return await self._send(caller_verbs.opt_out(caller_id, reason=reason, by=by))

    # Groups

    groups = awaited(caller_verbs.groups)
    add_to_group = awaited(caller_verbs.add_to_group)
    remove_from_group = awaited(caller_verbs.remove_from_group)
    set_groups = awaited(caller_verbs.set_groups)

    def members(self, group: str) -> AsyncIterator[Caller]:
        """The callers with a voiceprint who are in a group."""
        return self._pages(lambda after: caller_verbs.members(group, after=after))

    # Upkeep

    check = awaited(upkeep_verbs.check)
    feedback = awaited(upkeep_verbs.feedback)
    galleries = awaited(upkeep_verbs.galleries)
    health = awaited(upkeep_verbs.health)
    index_status = awaited(upkeep_verbs.index_status)
    rebuild_index = awaited(upkeep_verbs.rebuild_index)
    spaces = awaited(upkeep_verbs.spaces)
    threshold_advice = awaited(upkeep_verbs.threshold_advice)

    # Jobs and live calls of the service

    enroll_manifest_job = awaited(service_verbs.enroll_manifest_job)
    evaluate_job = awaited(service_verbs.evaluate_job)
    get_job = awaited(service_verbs.get_job)
    cancel_job = awaited(service_verbs.cancel_job)
    jobs = awaited(service_verbs.jobs)
    announce_call = awaited(service_verbs.announce_call)
    live_calls = awaited(service_verbs.live_calls)
    get_call = awaited(service_verbs.get_call)
    end_call = awaited(service_verbs.end_call)
    enroll_from_call = awaited(service_verbs.enroll_from_call)
