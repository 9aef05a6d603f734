"""The scores of a gallery's own callers, each left out in turn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from voices import BandEncoder, by_cosine, load_voices

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer

VOICES = load_voices()


@pytest.fixture
def recognizer() -> Iterator[OpusAgentVoiceRecognizer]:
    with OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder(), config=by_cosine()) as opened:
        yield opened


def enroll(recognizer: OpusAgentVoiceRecognizer, prints: int) -> None:
    for caller, utterances in VOICES.items():
        for audio in utterances[:prints]:
            recognizer.enroll_caller(caller, audio)


def test_strangers_and_known_callers_score_apart(recognizer: OpusAgentVoiceRecognizer) -> None:
    enroll(recognizer, 3)
    scores = recognizer.left_out_scores()
    assert (scores.gallery_size, scores.callers, scores.known_callers) == (9, 9, 9)
    assert (len(scores.strangers), len(scores.known)) == (9, 27)
    assert np.median(scores.strangers) < scores.known.min()
    # A cosine of each print with itself would be 1.
    assert scores.known_similarities.max() < 1
    assert scores.stranger_similarities.max() < scores.known_similarities.min()
    assert "0." not in repr(scores)


def test_the_threshold_of_a_target_has_that_fpir(recognizer: OpusAgentVoiceRecognizer) -> None:
    enroll(recognizer, 3)
    scores = recognizer.left_out_scores()
    targets = (0.001, 0.01, 0.1, 0.5)
    thresholds = [scores.threshold(target) for target in targets]
    assert [scores.fpir(llr) for llr in thresholds] == pytest.approx(targets)
    rates = [scores.fnir(llr) for llr in thresholds]
    assert rates == sorted(rates, reverse=True)  # type: ignore[type-var]
    assert rates[0] > rates[-1]  # type: ignore[operator]


def test_the_scores_are_those_of_an_identification_without_the_print(
    recognizer: OpusAgentVoiceRecognizer,
) -> None:
    enroll(recognizer, 3)
    caller, left_out = "amara", VOICES["amara"][2]
    known = recognizer.left_out_scores().known
    (print_,) = [
        one.id
        for one in recognizer.storage.get(caller).voiceprints[2:]  # type: ignore[union-attr]
    ]
    assert print_ is not None
    recognizer.delete_voiceprint(print_)
    best = recognizer.identify(left_out)[0]
    assert best.caller_id == caller
    # The statistics of the gallery have changed with it, by one print in 27.
    assert best.llr == pytest.approx(known[2], abs=0.3)


def test_callers_with_one_print_are_strangers_alone(recognizer: OpusAgentVoiceRecognizer) -> None:
    enroll(recognizer, 1)
    scores = recognizer.left_out_scores()
    assert (scores.callers, scores.known_callers, scores.fnir(0.0)) == (9, 0, None)


def test_a_gallery_of_few_callers_has_cosines_alone(recognizer: OpusAgentVoiceRecognizer) -> None:
    assert not recognizer.left_out_scores().has_llrs
    for audio in VOICES["amara"][:2]:
        recognizer.enroll_caller("amara", audio)
    recognizer.enroll_caller("bruno", VOICES["bruno"][0])
    scores = recognizer.left_out_scores()
    assert (scores.has_llrs, len(scores.strangers), len(scores.known)) == (False, 0, 0)
    assert (len(scores.stranger_similarities), len(scores.known_similarities)) == (2, 2)
