"""The async twins, and the parts that a recognizer builds once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from voices import BandEncoder, Voices, by_cosine

from voiceprint import (
    AudioQualityError,
    ConfigurationError,
    InvalidArgumentError,
    JSONStorage,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    SQLiteStorage,
    open_storage,
)
from voiceprint import upkeep as module


@pytest.fixture
def recognizer() -> OpusAgentVoiceRecognizer:
    return OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=by_cosine())


def test_every_twin_answers_as_its_method(recognizer: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    first, second = voices["amara"][:2]

    async def call() -> None:
        stored = await recognizer.aenroll_caller("amara", first, {"plan": "gold"})
        assert recognizer.get_caller("amara").voiceprints[0].id == stored.id
        assert await recognizer.amatch_caller(second) == recognizer.match_caller(second)
        assert await recognizer.aidentify(second, 3) == recognizer.identify(second, 3)
        assert await recognizer.averify_caller("amara", second) == recognizer.verify_caller("amara", second)
        assert await recognizer.acheck_enrollment(second) == recognizer.check_enrollment(second)

    asyncio.run(call())


def test_a_stream_is_an_async_context_manager(recognizer: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    recognizer.enroll_caller("amara", voices["amara"][0])

    async def call() -> str | None:
        async with recognizer.stream() as stream:
            await stream.afeed(voices["amara"][1])
            await stream.aresult()
            answer = await stream.afinish()
        assert "closed" in repr(stream)
        return answer.caller_id

    assert asyncio.run(call()) == "amara"


def test_a_twin_raises_what_its_method_raises(recognizer: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    with pytest.raises(AudioQualityError):
        asyncio.run(recognizer.amatch_caller(0 * voices["amara"][0]))


def test_a_subclass_that_overrides_a_method_changes_its_twin(voices: Voices) -> None:
    class Nobody(OpusAgentVoiceRecognizer):
        def match_caller(self, *_: object, **__: object) -> None:
            return None

    overridden = Nobody(MemoryStorage(), encoder=BandEncoder())
    overridden.enroll_caller("amara", voices["amara"][0])
    assert asyncio.run(overridden.amatch_caller(voices["amara"][0])) is None
    assert Nobody.amatch_caller.__name__ == "amatch_caller"


def test_parts_are_built_once_and_again_after_a_change(
    voices: Voices, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    parts = module.Parts
    monkeypatch.setattr(module, "Parts", lambda *given: built.append(given) or parts(*given))
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=by_cosine(), encoder=BandEncoder())
    recognizer.enroll_caller("amara", voices["amara"][0])
    for _ in range(3):
        assert recognizer.match_caller(voices["amara"][1]) is not None
    assert len(built) == 1
    recognizer.config.index_recall = 0.9
    recognizer.match_caller(voices["amara"][1])
    recognizer.match_caller(voices["amara"][1])
    assert len(built) == 2
    recognizer.storage = MemoryStorage()
    assert recognizer.match_caller(voices["amara"][1]) is None
    assert len(built) == 3


def test_a_changed_setting_counts_from_the_next_call(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    recognizer.enroll_caller("amara", voices["amara"][0])
    assert recognizer.match_caller(voices["amara"][1]) is not None
    recognizer.config.similarity_threshold = 1.0
    assert recognizer.match_caller(voices["amara"][1]) is None
    recognizer.config = by_cosine()
    assert recognizer.match_caller(voices["amara"][1]) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [("storage", object()), ("config", None), ("encoder", BandEncoder), ("encoder", "onnx")],
)
def test_an_attribute_of_the_wrong_kind_is_refused_and_nothing_changes(
    recognizer: OpusAgentVoiceRecognizer, name: str, value: object
) -> None:
    before = getattr(recognizer, name)
    with pytest.raises(InvalidArgumentError, match=f"{name}.* is"):
        setattr(recognizer, name, value)
    assert getattr(recognizer, name) is before


@pytest.mark.parametrize(
    "work",
    [
        lambda recognizer: JSONStorage(5),
        lambda recognizer: SQLiteStorage(None),
        lambda recognizer: open_storage(5),
        lambda recognizer: recognizer.enroll_many(None),
    ],
)
def test_an_argument_of_the_wrong_type_is_an_error_of_ours(
    recognizer: OpusAgentVoiceRecognizer, work: Callable[[OpusAgentVoiceRecognizer], object]
) -> None:
    with pytest.raises((InvalidArgumentError, ConfigurationError), match="give"):
        work(recognizer)
