"""Embeddings that the application computed: enrolled, identified and verified as those of audio are."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

import numpy as np
import pytest
from over_http import Reached, over_http
from stores import unit
from voices import BandEncoder, Voices

from voiceprint import (
    CallerNotFoundError,
    DisabledError,
    EncoderError,
    ExternalEncoder,
    InvalidArgumentError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    Verification,
    VoiceFingerprintConfig,
    VoiceMismatchError,
    Voiceprint,
)


@pytest.fixture
def external(reached: Reached) -> OpusAgentVoiceRecognizer:
    """A recognizer without a model, for embeddings of 192 values."""
    config = VoiceFingerprintConfig(similarity_threshold=0.75)
    return reached(
        OpusAgentVoiceRecognizer(MemoryStorage(), config=config, encoder=ExternalEncoder("elsewhere", 192))
    )


def near(vector: np.ndarray, seed: int, cosine: float = 0.9) -> np.ndarray:
    """A unit vector at about this cosine with another."""
    other = unit(seed, len(vector))
    other = other - (other @ vector) * vector
    return cosine * vector + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)


def without_event(verification: Verification) -> Verification:
    """The verification without the id of its event, which a service gives it."""
    return verification.model_copy(update={"event_id": None})


@over_http
def test_audio_and_its_embedding_get_the_same_answers(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    names = [*voices][:6]
    for name in names:
        recognizer.enroll_caller(name, voices[name][0], {"name": name})
    audio = voices[names[0]][1]
    embedding = recognizer.get_embedding(audio)
    from_audio, from_embedding = recognizer.identify(audio), recognizer.identify(embedding=embedding)
    assert from_audio == from_embedding
    assert from_audio[0].llr is not None
    assert recognizer.match_caller(audio) == recognizer.match_caller(embedding=embedding)
    verified = recognizer.verify_caller(names[0], audio)
    assert without_event(verified) == without_event(recognizer.verify_caller(names[0], embedding=embedding))
    assert recognizer.identify(embedding=embedding, k=1, candidates=names[1:3]) == recognizer.identify(
        audio, k=1, candidates=names[1:3]
    )


@over_http
def test_a_caller_is_enrolled_from_an_embedding_and_found_by_another(
    external: OpusAgentVoiceRecognizer,
) -> None:
    stored = external.enroll_caller("alice", embedding=3.5 * unit(1, 192), metadata={"plan": "gold"})
    external.enroll_caller("bob", embedding=unit(2, 192).tolist())
    assert (stored.encoder, stored.augmented, stored.metadata) == ("elsewhere", None, {"plan": "gold"})
    np.testing.assert_allclose(stored.embedding, unit(1, 192), atol=1e-6)
    probe = near(unit(1, 192), 3)
    match = external.match_caller(embedding=probe)
    assert match is not None
    assert (match[0], match[2]) == ("alice", {"plan": "gold"})
    assert match[1] == pytest.approx(0.9, abs=1e-5)
    assert [one.caller_id for one in external.identify(embedding=probe)] == ["alice", "bob"]
    assert external.verify_caller("alice", embedding=probe).accepted
    assert not external.verify_caller("bob", embedding=probe).accepted


@over_http
def test_an_accepted_embedding_moves_last_seen_and_no_other_does(external: OpusAgentVoiceRecognizer) -> None:
    seen = []
    external.enroll_caller("alice", embedding=unit(1, 192))
    for ask in (
        lambda: external.match_caller(embedding=unit(9, 192)),
        lambda: external.match_caller(embedding=near(unit(1, 192), 3)),
        lambda: external.verify_caller("alice", embedding=near(unit(1, 192), 4)),
    ):
        ask()
        caller = external.get_caller("alice")
        assert caller is not None
        seen.append(caller.last_seen)
    assert caller.created_at == seen[0] < seen[1] < seen[2]


@pytest.mark.resemblyzer
@over_http
def test_an_embedding_never_adapts_a_caller(recognizer: OpusAgentVoiceRecognizer, voices: Voices) -> None:
    for name, recordings in voices.items():
        recognizer.enroll_caller(name, recordings[0])
    recognizer.config.adapt, recognizer.config.target_fpir = True, 0.5
    probe = voices["amara"][1]
    embedding = recognizer.get_embedding(probe)
    assert recognizer.match_caller(embedding=embedding) is not None
    assert recognizer.verify_caller("amara", embedding=embedding).accepted
    assert recognizer.storage.count() == len(voices)
    assert recognizer.match_caller(probe) is not None
    assert recognizer.storage.count() == len(voices) + 1  # the same call as audio does


@over_http
def test_candidates_limit_a_match_of_audio_and_of_an_embedding(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    for name in ("amara", "bruno"):
        quick.enroll_caller(name, voices[name][0])
    audio = voices["amara"][1]
    for given in ({"audio_buffer": audio}, {"embedding": quick.get_embedding(audio)}):
        found = quick.match_caller(**given, candidates=["amara", "nobody"])
        assert found is not None
        assert found[0] == "amara"
        assert quick.match_caller(**given, candidates=["nobody"]) is None
        assert quick.match_caller(**given, candidates=["amara"], ignore=["amara"]) is None
    with pytest.raises(InvalidArgumentError, match="candidates is one str"):
        quick.match_caller(audio, candidates="amara")


@pytest.mark.parametrize("method", ["identify", "match_caller", "verify_caller", "enroll_caller"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "neither audio nor an embedding"),
        ({"embedding": unit(1, 192), "audio_buffer": np.zeros(16_000, np.float32)}, "both audio and an emb"),
        ({"embedding": unit(1, 192), "sample_rate": 8000}, "sample_rate, .*are for audio"),
        ({"embedding": unit(1, 192), "encoding": "mulaw"}, "are for audio"),
        ({"embedding": unit(1, 192), "channel": 0}, "are for audio"),
        ({"embedding": unit(1, 192), "channels": 2}, "are for audio"),
        ({"audio_buffer": np.zeros(16_000, np.float32), "encoder": "elsewhere"}, "audio is embedded by the"),
        ({"embedding": unit(1, 256)}, "has 256 values, and those of the encoder 'elsewhere' have 192"),
        ({"embedding": unit(1, 192), "encoder": "resemblyzer"}, "of the encoder 'resemblyzer', and this rec"),
        ({"embedding": unit(1, 192), "encoder": 7}, "of the encoder 7, "),
        ({"embedding": Voiceprint("a", unit(1, 256))}, "of the encoder 'resemblyzer'"),
        ({"embedding": unit(1, 192)[None]}, r"1-D and not empty; this one has the shape \(1, 192\)"),
        ({"embedding": []}, "1-D"),
        ({"embedding": np.zeros(192)}, "all zero"),
        ({"embedding": np.full(192, np.nan)}, "NaN"),
        ({"embedding": np.full(192, np.inf, np.float32)}, "NaN or infinite"),
        ({"embedding": "0.1 0.2"}, "not"),
        ({"embedding": np.ones(192, bool)}, "numbers"),
        ({"embedding": np.ones(192, complex)}, "numbers"),
        ({"embedding": {"a": 1}}, "numbers"),
        ({"embedding": np.ma.masked_less(unit(1, 192), 0.0)}, "masked array"),
    ],
)
@over_http
def test_a_wrong_embedding_is_refused_and_changes_nothing(
    external: OpusAgentVoiceRecognizer, method: str, given: dict[str, Any], message: str
) -> None:
    external.enroll_caller("alice", embedding=unit(1, 192))
    before = external.get_caller("alice")
    ask = getattr(external, method)
    claim = {} if method in ("identify", "match_caller") else {"caller_id": "alice"}
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        ask(**claim, **given)
    assert "0.0" not in str(caught.value)
    assert external.get_caller("alice") == before


@over_http
def test_voices_are_not_separated_in_an_embedding(external: OpusAgentVoiceRecognizer) -> None:
    wrong: dict[str, Any] = {"embedding": unit(1, 192), "separate": True}
    with pytest.raises(InvalidArgumentError, match="separate"):
        external.identify(**wrong)
    with pytest.raises(InvalidArgumentError, match="on_several_voices"):
        external.enroll_caller("alice", embedding=unit(1, 192), on_several_voices="largest")


@pytest.mark.parametrize("kind", ["float64", "float16", "int8", "list", "huge", "tiny"])
@over_http
def test_the_length_and_type_of_an_embedding_do_not_count(
    external: OpusAgentVoiceRecognizer, kind: str
) -> None:
    vector = unit(1, 192)
    given: Any = {
        "float64": vector.astype(np.float64),
        "float16": vector.astype(np.float16),
        "int8": np.round(500 * vector).astype(np.int8),
        "list": vector.tolist(),
        "huge": vector.astype(np.float64) * 1e200,
        "tiny": vector * np.float32(1e-30),
    }[kind]
    stored = external.enroll_caller("alice", embedding=given)
    assert float(stored.embedding @ vector) > 0.999
    assert float(np.linalg.norm(stored.embedding)) == pytest.approx(1, abs=1e-6)


@over_http
def test_a_voiceprint_is_an_embedding_that_names_its_encoder(external: OpusAgentVoiceRecognizer) -> None:
    given = Voiceprint("other", unit(1, 192), encoder="elsewhere", augmented=unit(2, 192))
    stored = external.enroll_caller("alice", embedding=given, encoder="elsewhere")
    assert stored.caller_id == "alice"
    assert np.array_equal(stored.embedding, given.embedding)
    assert stored.augmented is not None
    assert np.array_equal(stored.augmented, unit(2, 192))
    assert external.identify(embedding=stored)[0].similarity == pytest.approx(1)


@over_http
def test_an_embedding_is_enrolled_once(
    external: OpusAgentVoiceRecognizer, caplog: pytest.LogCaptureFixture
) -> None:
    first = external.enroll_caller("alice", embedding=unit(1, 192), metadata={"a": 1})
    with caplog.at_level(logging.INFO):
        again = external.enroll_caller("alice", embedding=unit(1, 192), metadata={"b": 2})
    assert (again.id, again.metadata) == (first.id, {"a": 1, "b": 2})
    assert "already enrolled" in caplog.text
    assert external.storage.count() == 1


@pytest.mark.resemblyzer
@over_http
def test_an_embedding_unlike_the_callers_others_is_reported_or_refused(
    recognizer: OpusAgentVoiceRecognizer, voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    mine, others = (recognizer.get_embedding(voices[name][0]) for name in ("amara", "carlo"))
    recognizer.enroll_caller("amara", embedding=mine)
    with pytest.raises(VoiceMismatchError, match="does not sound like"):
        recognizer.enroll_caller("amara", embedding=others, on_mismatch="refuse")
    assert recognizer.storage.count() == 1
    recognizer.enroll_caller("amara", embedding=others)
    assert "does not sound like the caller's others" in caplog.text
    wrong: Any = "drop"
    with pytest.raises(InvalidArgumentError, match="on_mismatch is 'drop'"):
        recognizer.enroll_caller("amara", embedding=others, on_mismatch=wrong)


@over_http
def test_switched_off_embeddings_are_treated_as_audio_is(external: OpusAgentVoiceRecognizer) -> None:
    external.enroll_caller("alice", embedding=unit(1, 192))
    external.config.fingerprinting_enabled = False
    assert external.match_caller(embedding=unit(1, 192)) is None
    assert external.identify(embedding=unit(1, 192)) == []
    with pytest.raises(DisabledError):
        external.verify_caller("alice", embedding=unit(1, 192))
    with pytest.raises(DisabledError):
        external.enroll_caller("bob", embedding=unit(2, 192))


@over_http
def test_a_claim_of_an_unknown_caller_is_refused(external: OpusAgentVoiceRecognizer) -> None:
    with pytest.raises(CallerNotFoundError, match="'bob'"):
        external.verify_caller("bob", embedding=unit(1, 192))


def test_the_async_twins_take_embeddings(external: OpusAgentVoiceRecognizer) -> None:
    async def call() -> tuple[Any, ...]:
        stored = await external.aenroll_caller("alice", embedding=unit(1, 192), metadata={"a": 1})
        match = await external.amatch_caller(embedding=unit(1, 192), candidates=["alice"])
        (best,) = await external.aidentify(embedding=unit(1, 192))
        return stored, match, best, await external.averify_caller("alice", embedding=unit(1, 192))

    stored, match, best, verified = asyncio.run(call())
    assert match == ("alice", pytest.approx(1), {"a": 1})
    assert (stored.id, best.caller_id, verified.accepted) == (best.voiceprint_id, "alice", True)


def test_the_twin_takes_the_arguments_of_enroll_caller() -> None:
    both = (OpusAgentVoiceRecognizer.enroll_caller, OpusAgentVoiceRecognizer.aenroll_caller)
    assert len({str(inspect.signature(method).parameters) for method in both}) == 1


# An encoder that runs elsewhere


def test_an_external_encoder_names_a_space_and_embeds_nothing(
    external: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    external.warm_up()
    audio = voices["amara"][0]
    external.enroll_caller("alice", embedding=unit(1, 192))
    for ask in (
        lambda: external.get_embedding(audio),
        lambda: external.enroll_caller("bob", audio),
        lambda: external.match_caller(audio),
        lambda: external.identify(audio),
        lambda: external.verify_caller("alice", audio),
    ):
        with pytest.raises(EncoderError, match=r"'elsewhere' runs elsewhere.*embedding="):
            ask()
    (result,) = external.enroll_many([("bob", audio, None)])
    assert isinstance(result, EncoderError)
    with external.stream() as session:
        session.feed(audio)
        with pytest.raises(EncoderError, match="runs elsewhere"):
            session.finish()
    with pytest.raises(EncoderError, match="runs elsewhere"):
        external.encoder.embed_batch([audio])
    assert repr(external.encoder) == "ExternalEncoder('elsewhere', 192)"


@over_http
def test_spaces_in_one_store_are_not_compared(quick: OpusAgentVoiceRecognizer) -> None:
    quick.enroll_caller("alice", embedding=unit(1, BandEncoder.dimension))
    other = OpusAgentVoiceRecognizer(quick.storage, encoder=ExternalEncoder("elsewhere", 192))
    other.enroll_caller("bob", embedding=unit(1, 192))
    assert [one.caller_id for one in other.identify(embedding=unit(1, 192))] == ["bob"]
    assert [one.caller_id for one in quick.identify(embedding=unit(1, 32))] == ["alice"]


@pytest.mark.parametrize(
    ("name", "dimension", "message"),
    [
        ("", 192, "name of the space is ''"),
        ("n" * 101, 192, "1 to 100 characters"),
        (None, 192, "None"),
        ("lone \ud800", 192, "name of the space is"),
        ("titanet", 0, "dimension is 0"),
        ("titanet", 65_537, "65536 is allowed"),
        ("titanet", 192.0, "192.0"),
        ("titanet", True, "True"),
        ("resemblyzer", 192, "'resemblyzer' has 256"),
    ],
)
def test_a_space_that_cannot_be_is_refused(name: Any, dimension: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        ExternalEncoder(name, dimension)
