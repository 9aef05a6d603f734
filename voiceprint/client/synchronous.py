"""`Client`: the verbs of the recognizer over HTTP."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import update_wrapper
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

import httpx

from voiceprint._lazy import Lazy
from voiceprint.audio import Encoding
from voiceprint.client import caller_verbs, service_verbs, upkeep_verbs, voice_verbs
from voiceprint.client.answers import Page
from voiceprint.client.calls import Call
from voiceprint.client.sending import KEEP_ALIVE_S, Sending, Target, headers_of
from voiceprint.client.uploads import Audio
from voiceprint.embedder import EmbeddingLike
from voiceprint.models import Caller, DeletionReceipt, Identification, SeparatedVoice
from voiceprint.storage.base import DEFAULT_PAGE

if TYPE_CHECKING:
    from typing_extensions import Self

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def named_after(verb: Callable[..., Any], method: F) -> F:
    """The method with the name, the docstring and the arguments of a verb, behind `self`."""
    update_wrapper(method, verb)
    own = Parameter("self", Parameter.POSITIONAL_ONLY)
    method.__signature__ = Signature([own, *signature(verb).parameters.values()])  # type: ignore[attr-defined]
    return method


def sent(verb: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """The method of `Client` that sends the call of a verb."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._send(verb(*args, **kwargs))

    return named_after(verb, method)


class Client:
    """Enrolls and identifies callers by a voiceprint service. Cheap to build, and thread-safe.

    url: address of the service, such as "https://voice.example". key: an API key of it. gallery: whose
    callers. timeout_s: longest time for a call with its repetitions. retries: most repetitions of a call
    that the service did not answer or was too busy for; each change has an idempotency key, so that a
    repeated one takes place once. connections: most at a time. verify: False does not check the certificate
    of the service, for tests; or an `ssl.SSLContext`, such as with a certificate authority of your own.
    embeddings: ask for the embeddings of voiceprints, which a key with the role admin may see; otherwise
    those of returned voiceprints are empty.

    The methods, their arguments, answers and errors are those of `OpusAgentVoiceRecognizer`. Audio is sent
    as it is given, without loss; a `Path` sends a file unchanged. Metadata is empty where the key may not see
    it. Besides, `ServiceError` and its subclasses are raised: no access, too many requests, no answer.
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
        headers = headers_of(key)
        limits = httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEP_ALIVE_S
        )
        # Loaded at the first use, and again in a forked process: two processes would mix their requests.
        self._http = Lazy(
            lambda: httpx.Client(headers=headers, limits=limits, verify=verify), inherited=False
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._target.base!r}, gallery={self._target.gallery!r})"

    def with_gallery(self, gallery: str) -> Self:
        """A client for another gallery of the service, with the same key and connections."""
        twin = object.__new__(type(self))
        twin._target, twin._http = self._target.with_gallery(gallery), self._http
        return twin

    def close(self) -> None:
        """Close the connections. May be called twice."""
        self._http.get().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, call: Call[T]) -> T:
        http, sending = self._http.get(), Sending(call, self._target)
        sending.check_open(http)
        while True:
            try:
                response = http.send(sending.request(http))
            except httpx.TransportError as error:
                wait_s: float | None = sending.after_error(error)
            else:
                wait_s = sending.after_answer(response)
                if wait_s is None:
                    answer: T = sending.read(response)
                    return answer
            time.sleep(wait_s or 0.0)

    def _pages(self, page_after: Callable[[str], Call[Page]]) -> Iterator[Caller]:
        """The callers of all pages. page_after: the call of the page after a caller id."""
        after: str | None = ""
        while after is not None:
            page = self._send(page_after(after))
            yield from page.callers
            after = page.next

    # Audio

    get_embedding = sent(voice_verbs.get_embedding)
    check_enrollment = sent(voice_verbs.check_enrollment)
    enroll_caller = sent(voice_verbs.enroll_caller)
    match_caller = sent(voice_verbs.match_caller)
    verify_caller = sent(voice_verbs.verify_caller)

    @overload
    def identify(
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
    def identify(
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

    def identify(self, *args: Any, **kwargs: Any) -> Identification | list[SeparatedVoice]:
        """See `voice_verbs.identify`, whose docstring this gets."""
        found: Identification | list[SeparatedVoice] = self._send(voice_verbs.identify(*args, **kwargs))
        return found

    named_after(voice_verbs.identify, identify)

    # Callers

    get_caller = sent(caller_verbs.get_caller)
    caller_state = sent(caller_verbs.caller_state)
    delete_voiceprint = sent(caller_verbs.delete_voiceprint)
    update_metadata = sent(caller_verbs.update_metadata)
    rename_caller = sent(caller_verbs.rename_caller)
    merge_callers = sent(caller_verbs.merge_callers)
    set_consent = sent(caller_verbs.set_consent)
    opt_in = sent(caller_verbs.opt_in)

    def callers(self) -> Iterator[Caller]:
        """All callers, in the order of their ids, read from the service a page at a time."""
        return self._pages(lambda after: caller_verbs.callers(after=after))

    def find_callers(
        self, metadata: Mapping[str, Any], *, after: str = "", limit: int = DEFAULT_PAGE
    ) -> list[Caller]:
        """The callers whose metadata has these values, in the order of their ids; at most `limit`.

        As `OpusAgentVoiceRecognizer.find_callers`.
        """
        found: list[Caller] = []
        next_id: str | None = after
        while next_id is not None and len(found) < limit:
            page = self._send(caller_verbs.find_callers(metadata, after=next_id, limit=limit - len(found)))
            found += page.callers
            next_id = page.next
        return found

    @overload
    def delete_caller(self, caller_id: str, *, receipt: Literal[False] = False) -> int: ...

    @overload
    def delete_caller(self, caller_id: str, *, receipt: Literal[True]) -> DeletionReceipt: ...

    def delete_caller(self, caller_id: str, *, receipt: bool = False) -> int | DeletionReceipt:
        """Remove a caller with all voiceprints and metadata; return the number of voiceprints.

        receipt: wait until the disk has followed, search every file of the store for remains, and return a
        `DeletionReceipt`; raises `CallerNotFoundError` for an unknown caller.
        """
        if receipt:
            return self._send(caller_verbs.delete_with_receipt(caller_id))
        return self._send(caller_verbs.delete_caller(caller_id))

    @overload
    def opt_out(
        self,
        caller_id: str,
        *,
        reason: str | None = None,
        by: str | None = None,
        receipt: Literal[False] = False,
    ) -> int: ...

    @overload
    def opt_out(
        self, caller_id: str, *, reason: str | None = None, by: str | None = None, receipt: Literal[True]
    ) -> DeletionReceipt: ...

    def opt_out(
        self, caller_id: str, *, reason: str | None = None, by: str | None = None, receipt: bool = False
    ) -> int | DeletionReceipt:
        """Erase all voiceprints and data of a caller who refuses, and note the refusal; return the number of
        voiceprints, or with `receipt` a `DeletionReceipt`.

        As `OpusAgentVoiceRecognizer.opt_out`.
        """
        if receipt:
            return self._send(caller_verbs.opt_out_with_receipt(caller_id, reason=reason, by=by))
        return self._send(caller_verbs.opt_out(caller_id, reason=reason, by=by))

    # Groups

    groups = sent(caller_verbs.groups)
    add_to_group = sent(caller_verbs.add_to_group)
    remove_from_group = sent(caller_verbs.remove_from_group)
    set_groups = sent(caller_verbs.set_groups)

    def members(self, group: str) -> Iterator[Caller]:
        """The callers with a voiceprint who are in a group."""
        return self._pages(lambda after: caller_verbs.members(group, after=after))

    # Upkeep

    check = sent(upkeep_verbs.check)
    feedback = sent(upkeep_verbs.feedback)
    galleries = sent(upkeep_verbs.galleries)
    health = sent(upkeep_verbs.health)
    index_status = sent(upkeep_verbs.index_status)
    rebuild_index = sent(upkeep_verbs.rebuild_index)
    spaces = sent(upkeep_verbs.spaces)
    threshold_advice = sent(upkeep_verbs.threshold_advice)

    # Jobs and live calls of the service

    enroll_manifest_job = sent(service_verbs.enroll_manifest_job)
    evaluate_job = sent(service_verbs.evaluate_job)
    get_job = sent(service_verbs.get_job)
    cancel_job = sent(service_verbs.cancel_job)
    jobs = sent(service_verbs.jobs)
    announce_call = sent(service_verbs.announce_call)
    live_calls = sent(service_verbs.live_calls)
    get_call = sent(service_verbs.get_call)
    end_call = sent(service_verbs.end_call)
    enroll_from_call = sent(service_verbs.enroll_from_call)
