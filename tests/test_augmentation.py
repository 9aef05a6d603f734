"""Enrollment on simulated lines: who gets the print for them, what is in it, and that it helps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from voices import BandEncoder, Voices, saved

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer, VoiceFingerprintConfig, Voiceprint
from voiceprint.audio import Recording, assess
from voiceprint.audio.enhance.low_frequencies import restore_low_frequencies
from voiceprint.audio.enhance.noise_reduction import reduce_noise
from voiceprint.audio.io.buffers import resample
from voiceprint.audio.simulate import Condition
from voiceprint.encoder import default_encoder
from voiceprint.encoder.base import Encoder
from voiceprint.enrollment.augmentation import (
    LINES,
    AugmentationPlan,
    PlannedAugmentation,
    augmentation_plan,
    augmented_embeddings,
)

pytestmark = pytest.mark.resemblyzer


def simulated_embedding(
    encoder: Encoder, audio: NDArray[np.float32], plain: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """The augmented embedding of the simulated lines alone."""
    return augmented_embeddings(
        encoder,
        [
            PlannedAugmentation(
                Recording.from_buffer(audio), plain, AugmentationPlan(lines=True, cleaned=False)
            )
        ],
    )[0]


@pytest.fixture(scope="module")
def enrolled(voices: Voices) -> dict[str, Voiceprint]:
    """The first utterance of each sample caller, enrolled alone."""
    with MemoryStorage() as storage:
        recognizer = OpusAgentVoiceRecognizer(storage)
        return {name: recognizer.enroll_caller(name, audios[0]) for name, audios in voices.items()}


def test_it_is_the_average_of_the_plain_embedding_and_those_of_the_lines(voices: Voices) -> None:
    encoder, audio = default_encoder(), voices["amara"][0]
    plain = encoder.embed(audio)
    total = plain.astype(np.float64)
    for name in ("telephone:band=full,snr=20", "telephone:snr=20"):
        total += encoder.embed(restore_low_frequencies(reduce_noise(Condition.parse(name).apply(audio, 3))))
    simulated = simulated_embedding(encoder, audio, plain)
    np.testing.assert_allclose(simulated, total / np.linalg.norm(total), atol=1e-5)
    assert (simulated.dtype, simulated.shape) == (np.dtype(np.float32), (256,))
    assert np.array_equal(simulated, simulated_embedding(encoder, audio.copy(), plain))


def test_a_caller_enrolled_on_a_clear_line_is_nearer_to_the_telephone_by_it(
    voices: Voices, enrolled: dict[str, Voiceprint]
) -> None:
    encoder = default_encoder()
    for line in LINES:
        heard = {name: encoder.embed(line.apply(audios[1], 1)) for name, audios in voices.items()}
        gains = [heard[name] @ one.augmented - heard[name] @ one.embedding for name, one in enrolled.items()]
        assert np.mean(gains) > 0.03
        assert min(gains) > -0.01


def test_enrollment_one_by_one_and_of_many_give_the_same(
    voices: Voices, enrolled: dict[str, Voiceprint]
) -> None:
    with MemoryStorage() as storage:
        results = OpusAgentVoiceRecognizer(storage).enroll_many(
            (name, audios[0], None) for name, audios in voices.items()
        )
        for result in map(saved, results):
            alone = enrolled[result.caller_id]
            np.testing.assert_allclose(result.embedding, alone.embedding, atol=1e-5)
            np.testing.assert_allclose(result.augmented, alone.augmented, atol=1e-5)
            assert storage.get(result.caller_id).voiceprints[0] == result


def test_of_a_list_the_wide_band_samples_get_it_and_those_without_low_frequencies(voices: Voices) -> None:
    audio = voices["amara"][0]
    telephone = Condition.parse("telephone:band=full").apply(voices["bruno"][0])
    narrow = Condition.parse("telephone").apply(voices["dario"][0])
    results = OpusAgentVoiceRecognizer(MemoryStorage()).enroll_many(
        [
            ("telephone", telephone, None),
            ("narrow", narrow, None),
            ("wide", audio, None),
            ("short", audio[:1_000], None),
            ("silent", np.zeros_like(audio), None),
            ("wide too", voices["carlo"][0], None),
        ]
    )
    has = {one.caller_id: one.augmented is not None for one in results if isinstance(one, Voiceprint)}
    assert has == {"telephone": False, "narrow": True, "wide": True, "wide too": True}
    second = next(one.augmented for one in results if one.caller_id == "narrow")
    np.testing.assert_allclose(second, default_encoder().embed(restore_low_frequencies(narrow)), atol=1e-5)


def test_audio_at_the_rate_of_a_telephone_gets_none(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage())
    low = resample(voices["amara"][0], 16_000, 8_000)
    assert recognizer.enroll_caller("amara", low, sample_rate=8_000).augmented is None
    high = resample(voices["amara"][0], 16_000, 48_000)
    assert recognizer.enroll_caller("amara", high, sample_rate=48_000).augmented is not None


def test_the_setting_turns_it_off(voices: Voices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICE_ENROLL_SIMULATED_LINES", "false")
    config = VoiceFingerprintConfig()
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config)
    assert recognizer.enroll_caller("amara", voices["amara"][0]).augmented is None
    config.enroll_simulated_lines = True
    assert recognizer.enroll_caller("amara", voices["amara"][0]).augmented is not None


def test_an_encoder_of_another_space_is_not_asked_for_it(
    quick: OpusAgentVoiceRecognizer, voices: Voices
) -> None:
    assert quick.enroll_caller("amara", voices["amara"][0]).augmented is None
    assert not augmentation_plan(BandEncoder(), assess(voices["amara"][0]))
    assert augmentation_plan(default_encoder(), assess(voices["amara"][0])) == (True, False, False)


def test_the_first_30_seconds_are_enough(voices: Voices) -> None:
    encoder = default_encoder()
    speech = np.concatenate([audio for audios in voices.values() for audio in audios])
    long, first = speech[: 45 * 16_000], speech[: 30 * 16_000]
    assert len(long) == 45 * 16_000
    plain = encoder.embed(first)
    assert np.array_equal(
        simulated_embedding(encoder, long, plain), simulated_embedding(encoder, first, plain)
    )


def test_a_long_recording_that_begins_with_silence_has_it_too(voices: Voices) -> None:
    audio = np.concatenate([np.zeros(31 * 16_000, np.float32), *voices["amara"]])
    print_ = OpusAgentVoiceRecognizer(MemoryStorage()).enroll_caller("amara", audio)
    assert print_.augmented is not None


def test_one_that_cannot_be_embedded_takes_it_from_no_other(voices: Voices) -> None:
    encoder = default_encoder()
    audios = [voices["amara"][0], np.zeros(80_000, np.float32), voices["bruno"][0]]
    plains = [encoder.embed(audios[0]), encoder.embed(audios[0]), encoder.embed(audios[2])]
    lines = AugmentationPlan(lines=True, cleaned=False)
    one, none, other = augmented_embeddings(
        encoder,
        [
            PlannedAugmentation(Recording.from_buffer(audio), plain, lines)
            for audio, plain in zip(audios, plains, strict=True)
        ],
    )
    assert none is None
    np.testing.assert_allclose(one, simulated_embedding(encoder, audios[0], plains[0]), atol=1e-5)
    np.testing.assert_allclose(other, simulated_embedding(encoder, audios[2], plains[2]), atol=1e-5)
    assert augmented_embeddings(encoder, []) == []


def test_of_noisy_audio_it_is_what_is_left_without_the_noise(voices: Voices) -> None:
    encoder = default_encoder()
    noisy = Condition.parse("telephone:snr=15").apply(voices["amara"][0])
    assert augmentation_plan(encoder, assess(noisy)) == (False, True, True)
    print_ = OpusAgentVoiceRecognizer(MemoryStorage()).enroll_caller("amara", noisy)
    np.testing.assert_allclose(print_.embedding, encoder.embed(noisy), atol=1e-5)
    expected = encoder.embed(restore_low_frequencies(reduce_noise(noisy)))
    np.testing.assert_allclose(print_.augmented, expected, atol=1e-5)


def test_what_an_encoder_gives_that_is_no_embedding_is_not_kept(voices: Voices) -> None:
    class Odd(BandEncoder):
        """Gives something that is no embedding."""

        def embed_batch(self, audios: object) -> NDArray[np.float32]:
            return np.full((2, 32), np.nan, np.float32)

    plain = Odd().embed(voices["amara"][0])
    assert simulated_embedding(Odd(), voices["amara"][0], plain) is None
