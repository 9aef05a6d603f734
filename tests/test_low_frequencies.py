"""The lows that a telephone line takes: raised where they are missing, and nowhere else."""

import numpy as np
import pytest
from voices import Voices

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer
from voiceprint.audio import assess
from voiceprint.audio.enhance.low_frequencies import EDGE_HZ, low_frequency_level_db, restore_low_frequencies
from voiceprint.audio.enhance.noise_reduction import clean, is_noisy, reduce_noise
from voiceprint.audio.simulate import Condition
from voiceprint.encoder import default_encoder
from voiceprint.identification.ranking import prints_of
from voiceprint.scoring import GalleryScorer, projection_for

NARROW, FULL = Condition.parse("telephone:snr=20"), Condition.parse("telephone:band=full,snr=20")


def level_db(audio, low, high):
    power = np.square(np.abs(np.fft.rfft(audio)))
    frequency = np.fft.rfftfreq(len(audio), 1 / 16_000)
    return 10 * np.log10(power[(frequency >= low) & (frequency < high)].sum())


def test_a_line_that_took_them_gets_them_back_and_the_rest_is_as_it_was(voices: Voices):
    for audios in voices.values():
        received = reduce_noise(NARROW.apply(audios[0]))
        raised = restore_low_frequencies(received)
        assert (raised.shape, raised.dtype) == (received.shape, np.float32)
        assert level_db(raised, 80, 180) - level_db(received, 80, 180) == pytest.approx(12, abs=0.1)
        assert level_db(raised, EDGE_HZ, 8000) == pytest.approx(level_db(received, EDGE_HZ, 8000), abs=1e-3)
        assert level_db(raised, 0, 55) < level_db(received, 0, 55) - 10


def test_voices_come_nearer_to_their_clear_ones(voices: Voices):
    encoder, gains = default_encoder(), []
    for audios in voices.values():
        clear, received = encoder.embed(audios[0]), reduce_noise(NARROW.apply(audios[0]))
        gains.append(
            encoder.embed(restore_low_frequencies(received)) @ clear - encoder.embed(received) @ clear
        )
    assert np.mean(gains) > 0.02


def test_a_line_that_carries_them_stays_as_it_is_and_clear_speech_always(voices: Voices):
    pieces = [audio for audios in voices.values() for audio in audios]
    received = [reduce_noise(FULL.apply(audio)) for audio in pieces]
    assert sum(restore_low_frequencies(one) is not one for one in received) <= 0.1 * len(received)
    clear = [audio for audio in pieces if not is_noisy(assess(audio))]
    assert len(clear) > 0.5 * len(pieces)
    assert all(clean(audio, assess(audio)) is audio for audio in clear)


@pytest.mark.parametrize("length", [0, 1, 7_999, 8_000, 16_001])
def test_silence_and_scraps_stay_as_they_are(length):
    audio = np.zeros(length, dtype=np.float32)
    assert restore_low_frequencies(audio) is audio


def test_faintness_is_the_difference_of_the_levels_of_the_bands():
    frequency = np.fft.rfftfreq(16_001, 1 / 16_000)
    spectrum = np.where(frequency < EDGE_HZ, 0.1, 1.0).astype(complex)
    assert low_frequency_level_db(spectrum, 16_001) == pytest.approx(-20.0, abs=0.01)


def test_a_line_without_noise_gets_them_back_as_well(voices: Voices):
    audio = voices["amara"][0]
    quiet = Condition.parse("telephone").apply(audio)
    quality = assess(quiet)
    assert not is_noisy(quality)
    assert np.array_equal(clean(quiet, quality), restore_low_frequencies(quiet))
    full = Condition.parse("telephone:band=full").apply(audio)
    assert clean(full, assess(full)) is full
    noisy = NARROW.apply(audio)
    assert np.array_equal(clean(noisy, assess(noisy)), restore_low_frequencies(reduce_noise(noisy)))


@pytest.mark.resemblyzer
def test_a_call_is_named_by_the_raised_low_frequencies_at_once_and_as_a_stream(voices: Voices):
    with MemoryStorage() as storage:
        recognizer = OpusAgentVoiceRecognizer(storage)
        prints = {name: recognizer.enroll_caller(name, audios[0]) for name, audios in voices.items()}
        received = Condition.parse("telephone").apply(voices["dario"][1])
        assert restore_low_frequencies(received) is not received
        found = recognizer.identify(received, k=1)[0]
        with recognizer.stream(sample_rate=16_000, k=1) as call:
            call.feed(received)
            streamed = call.finish().matches[0]
    scorer = GalleryScorer(projection_for("resemblyzer", 256), [prints_of([one]) for one in prints.values()])
    probe = default_encoder().embed(restore_low_frequencies(received))
    expected = scorer.llrs(probe, [prints_of([prints["dario"]])])[0]
    assert (found.caller_id, streamed.caller_id) == ("dario", "dario")
    assert (found.llr, streamed.llr) == pytest.approx((expected, expected), abs=1e-3)
