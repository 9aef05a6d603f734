"""The figures of a match: likelihood, expected false positives, margin, verdict, and the deciding target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from voices import BandEncoder, Voices

from voiceprint import (
    ConfigurationError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    VoiceFingerprintConfig,
    Voiceprint,
)
from voiceprint.audio.simulate import Condition
from voiceprint.identification.ranking import prints_of
from voiceprint.models import Match
from voiceprint.scoring import Calibration, GalleryScorer, probabilities, projection_for

ENROLLED = ("amara", "bruno", "carlo", "dario", "elena")
STRANGER = "hakan"


@pytest.fixture(scope="module")
def gallery(voices: Voices) -> MemoryStorage:
    storage = MemoryStorage()
    recognizer = OpusAgentVoiceRecognizer(storage)
    for name in ENROLLED:
        for audio in voices[name][:2]:
            recognizer.enroll_caller(name, audio)
    return storage


def over(gallery: MemoryStorage, **settings: object) -> OpusAgentVoiceRecognizer:
    return OpusAgentVoiceRecognizer(gallery, config=VoiceFingerprintConfig(**settings))


def someone(seed: int) -> NDArray[np.float32]:
    """Like an embedding of the encoder: no value is negative."""
    vector = np.maximum(np.random.default_rng(seed).standard_normal(256), 0).astype(np.float32)
    return vector / np.linalg.norm(vector)


def test_matches_are_ranked_by_likelihood_and_margins_are_their_differences(
    gallery: MemoryStorage, voices: Voices
) -> None:
    for name in ENROLLED:
        matches = over(gallery).identify(voices[name][2], k=5)
        assert matches[0].caller_id == name
        ratios = [match.llr for match in matches]
        assert None not in ratios
        assert ratios == sorted(ratios, reverse=True)
        assert matches[0].margin == pytest.approx(ratios[0] - ratios[1])
        for match, ratio in zip(matches[1:], ratios[1:], strict=True):
            assert match.margin == pytest.approx(ratio - ratios[0])


def test_the_likelihood_favors_the_caller_and_not_a_stranger(gallery: MemoryStorage, voices: Voices) -> None:
    stranger = over(gallery).identify(voices[STRANGER][0])[0]
    for name in ENROLLED:
        best, next_ = over(gallery).identify(voices[name][2], k=2)
        assert best.llr > max(0.0, next_.llr, stranger.llr)
        assert best.fpir < min(next_.fpir, stranger.fpir)


@pytest.mark.resemblyzer
def test_the_likelihood_is_that_of_all_voiceprints_of_a_caller(
    gallery: MemoryStorage, voices: Voices
) -> None:
    recognizer = over(gallery)
    match = recognizer.identify(voices["amara"][2])[0]
    caller = recognizer.get_caller("amara")
    assert caller is not None
    cohort = [prints_of(one.voiceprints) for one in recognizer.callers()]
    scorer = GalleryScorer(projection_for("resemblyzer", 256), cohort)
    expected = scorer.llrs(recognizer.get_embedding(voices["amara"][2]), [prints_of(caller.voiceprints)])
    assert match.llr == pytest.approx(float(expected[0]), abs=1e-4)
    assert recognizer.verify_caller("amara", voices["amara"][2]).llr == pytest.approx(match.llr, abs=1e-9)


def test_among_few_candidates_a_stranger_is_less_likely_to_be_named(
    gallery: MemoryStorage, voices: Voices
) -> None:
    recognizer = over(gallery)
    everyone = recognizer.identify(voices[STRANGER][0], k=1)[0]
    (alone,) = recognizer.identify(voices[STRANGER][0], candidates=[everyone.caller_id])
    assert alone.llr == pytest.approx(everyone.llr)
    assert 0.0 < alone.fpir < everyone.fpir <= 1.0
    assert alone.margin is None
    claimed = recognizer.verify_caller(everyone.caller_id, voices[STRANGER][0])
    assert claimed.fmr == pytest.approx(alone.fpir)


@pytest.mark.resemblyzer
def test_a_single_caller_is_judged_by_the_prior(voices: Voices) -> None:
    recognizer = over(MemoryStorage(), target_fpir=0.05)
    recognizer.enroll_caller("amara", voices["amara"][0])
    (own,), (other,) = (recognizer.identify(audio) for audio in (voices["amara"][1], voices[STRANGER][0]))
    assert own.llr > 0.0 > other.llr
    assert own.fpir < 0.1 < other.fpir
    assert other.verdict != "accepted"


def test_no_score_is_said_to_be_beyond_all_strangers(gallery: MemoryStorage, voices: Voices) -> None:
    assert over(gallery).identify(voices["amara"][0])[0].fpir > 0.0


def test_without_a_target_the_documented_threshold_decides(gallery: MemoryStorage, voices: Voices) -> None:
    recognizer = over(gallery)
    for audio in (voices["amara"][2], voices[STRANGER][0]):
        for match in recognizer.identify(audio, k=5):
            assert match.accepted == (match.similarity >= 0.75)
            assert match.accepted == (match.verdict == "accepted")


def alike(storage: MemoryStorage, callers: int, in_common: float) -> None:
    """Callers whose embeddings have so much in common."""
    common = someone(0)
    storage.save_many(
        Voiceprint(f"caller {seed}", in_common * common + (1.0 - in_common) * someone(seed))
        for seed in range(1, callers + 1)
    )


@pytest.mark.resemblyzer
def test_a_threshold_that_gives_strangers_a_name_is_warned_of_once(
    voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    storage = MemoryStorage()
    alike(storage, 30, 0.6)
    recognizer = over(storage)
    advice = recognizer.threshold_advice()
    assert advice is not None
    assert "VOICE_TARGET_FPIR=0.01" in advice
    for _ in range(2):
        recognizer.identify(voices["amara"][0])
        over(storage).match_caller(voices["amara"][0])
    shown = [record.message for record in caplog.records if "VOICE_TARGET_FPIR" in record.message]
    assert len(shown) == 1
    assert advice in shown[0]


@pytest.mark.parametrize("settings", [{"target_fpir": 0.01}, {"calibrated_similarity": True}])
def test_nobody_is_warned_of_a_threshold_that_does_not_decide(
    settings: dict[str, object], voices: Voices, caplog: pytest.LogCaptureFixture
) -> None:
    storage = MemoryStorage()
    alike(storage, 30, 0.6)
    recognizer = over(storage, **settings)
    assert recognizer.threshold_advice() is None
    recognizer.identify(voices["amara"][0])
    over(storage).identify(voices["amara"][0], threshold=0.75)
    assert not [record for record in caplog.records if "VOICE_TARGET_FPIR" in record.message]


@pytest.mark.parametrize(("callers", "in_common"), [(30, 0.2), (4, 0.9), (0, 0.0)])
def test_voices_that_differ_and_few_callers_give_no_warning(callers: int, in_common: float) -> None:
    storage = MemoryStorage()
    alike(storage, callers, in_common)
    assert over(storage).threshold_advice() is None


@pytest.mark.resemblyzer
def test_of_a_large_gallery_a_sample_says_how_often_strangers_get_a_name() -> None:
    storage = MemoryStorage()
    alike(storage, 900, 0.3)
    recognizer = over(storage)
    gallery, count = recognizer._built.gallery, 900
    gallery.refresh()
    vectors = np.stack([one.embedding for one in storage.get_all()])
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1.0)
    for threshold in np.quantile(cosines.max(axis=1), [0.5, 0.9]):
        expected = float((cosines.max(axis=1) >= threshold).mean())
        assert gallery.expected_fpir(float(threshold)) == pytest.approx(expected, rel=0.5)
    statistics = gallery.scorer().statistics
    assert statistics is not None
    assert (statistics.callers, statistics.others) == (300, count - 1)


def test_a_target_decides_by_the_expected_false_positives(gallery: MemoryStorage, voices: Voices) -> None:
    strict, lax = over(gallery, target_fpir=1e-12), over(gallery, target_fpir=0.3)
    # The target decides where the cosine, for which any caller would do, does not.
    lax.config.similarity_threshold = strict.config.similarity_threshold = 0.0
    for name in ENROLLED:
        match = lax.identify(voices[name][2])[0]
        assert match.accepted == (match.fpir <= 0.3)
        assert lax.match_caller(voices[name][2])[0] == name
        assert strict.match_caller(voices[name][2]) is None


def test_a_threshold_that_is_given_goes_before_the_target(gallery: MemoryStorage, voices: Voices) -> None:
    recognizer = over(gallery, target_fpir=1e-12)
    assert not recognizer.identify(voices["amara"][2])[0].accepted
    assert recognizer.identify(voices["amara"][2], threshold=0.75)[0].accepted


@pytest.mark.resemblyzer
def test_similarity_is_the_probability_only_where_one_asked_for_it(
    gallery: MemoryStorage, voices: Voices
) -> None:
    cosine, calibrated = over(gallery), over(gallery, calibrated_similarity=True)
    for audio in (voices["amara"][2], voices[STRANGER][0]):
        plain, asked = cosine.identify(audio, k=5), calibrated.identify(audio, k=5)
        assert [match.caller_id for match in asked] == [match.caller_id for match in plain]
        probe = cosine.get_embedding(audio)
        for one, other in zip(plain, asked, strict=True):
            caller = cosine.get_caller(one.caller_id)
            assert caller is not None
            best = max(float(probe @ voiceprint.embedding) for voiceprint in caller.voiceprints)
            assert one.similarity == pytest.approx(best, abs=1e-6)
            assert other.similarity == other.probability == one.probability
            assert other.accepted == (other.probability >= 0.75)
        ratios = [match.llr for match in plain]
        expected = probabilities(ratios, len(ENROLLED))  # all five were ranked
        assert [match.probability for match in plain] == pytest.approx(expected.tolist())
    similarity = calibrated.match_caller(voices["amara"][2])[1]
    assert similarity == calibrated.identify(voices["amara"][2])[0].probability > 0.75
    assert calibrated.match_caller(voices[STRANGER][0]) is None


def test_a_verification_is_calibrated_where_one_asked_for_it(gallery: MemoryStorage, voices: Voices) -> None:
    cosine, calibrated = over(gallery), over(gallery, calibrated_similarity=True)
    for audio, accepted in ((voices["amara"][2], True), (voices[STRANGER][0], False)):
        plain, asked = (one.verify_caller("amara", audio) for one in (cosine, calibrated))
        assert plain.llr == asked.llr
        assert asked.similarity == asked.probability == pytest.approx(1 / (1 + np.exp(-asked.llr)))
        assert plain.similarity != plain.probability == asked.probability
        assert asked.accepted == accepted


@pytest.mark.resemblyzer
def test_a_stream_decides_by_the_probability_where_one_asked_for_it(
    gallery: MemoryStorage, voices: Voices
) -> None:
    recognizer = over(gallery, calibrated_similarity=True)
    for name, audio in (("amara", voices["amara"][2]), (None, voices[STRANGER][0])):
        decided = None
        with recognizer.stream() as session:
            for start in range(0, len(audio), 1600):
                session.feed(audio[start : start + 1600])
                answer = session.result()
                decided = decided or (answer if answer.decided else None)
            end = session.finish()
        assert end.similarity == pytest.approx(recognizer.identify(audio, k=1)[0].probability, rel=1e-3)
        assert (end.caller_id if end.accepted else None) == name
        if name is not None:
            assert decided is not None
            assert decided.similarity == decided.matches[0].probability
            assert decided.caller_id == name


def test_a_gallery_that_is_too_small_for_a_target_is_inconclusive(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(
        MemoryStorage(), encoder=BandEncoder(), config=VoiceFingerprintConfig(target_fpir=0.01)
    )
    recognizer.enroll_caller("amara", voices["amara"][0])
    (match,) = recognizer.identify(voices["amara"][1])
    assert (match.accepted, match.verdict, match.llr, match.fpir) == (False, "inconclusive", None, None)
    assert "too_small" not in match.model_dump()
    assert recognizer.match_caller(voices["amara"][1]) is None
    assert not recognizer.verify_caller("amara", voices["amara"][1]).accepted


def test_a_cosine_is_never_taken_for_the_probability_that_was_asked_for(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(
        MemoryStorage(), encoder=BandEncoder(), config=VoiceFingerprintConfig(calibrated_similarity=True)
    )
    recognizer.enroll_caller("amara", voices["amara"][0])
    (match,) = recognizer.identify(voices["amara"][1])
    assert match.probability is None
    assert not match.accepted
    assert not recognizer.verify_caller("amara", voices["amara"][1]).accepted


@pytest.mark.resemblyzer
def test_a_verification_goes_by_its_own_target_or_a_threshold(gallery: MemoryStorage, voices: Voices) -> None:
    audio = voices["amara"][2]
    by_default = over(gallery).verify_caller("amara", audio)
    assert (by_default.accepted, by_default.threshold) == (True, 0.75)
    strict = over(gallery, target_fmr=1e-12, target_fpir=0.3)
    refused = strict.verify_caller("amara", audio)
    assert (refused.accepted, refused.threshold) == (False, None)
    assert refused.fmr == by_default.fmr
    assert strict.verify_caller("amara", audio, threshold=0.75).accepted
    assert over(gallery, target_fpir=0.3).verify_caller("amara", audio).accepted
    assert not over(gallery, target_fpir=0.3).verify_caller("amara", voices[STRANGER][0]).accepted


@pytest.mark.parametrize(("accepted", "fpir", "verdict"), [
    (True, 0.9, "accepted"), (False, 0.9, "rejected"), (False, 0.5, "rejected"),
    (False, 0.49, "inconclusive"), (False, None, "rejected"), (True, None, "accepted"),
])  # fmt: skip
def test_verdicts(accepted: bool, fpir: float | None, verdict: str) -> None:
    match = Match(caller_id="a", similarity=0.7, voiceprint_id=1, accepted=accepted, fpir=fpir)
    assert match.verdict == verdict
    assert match.model_dump()["verdict"] == verdict


@pytest.mark.slow
def test_a_caller_enrolled_on_a_clear_line_is_found_by_telephone(voices: Voices) -> None:
    storage = MemoryStorage()
    recognizer = over(storage)
    for name in voices:
        recognizer.enroll_caller(name, voices[name][0])
    for line in ("telephone:band=full,snr=20", "telephone:snr=20"):
        found = [
            recognizer.identify(Condition.parse(line).apply(voices[name][1]))[0].caller_id for name in voices
        ]
        right = sum(name == answer for name, answer in zip(voices, found, strict=True))
        assert right >= len(voices) - 1, line


def test_a_noisy_call_keeps_the_similarity_of_its_own_embedding(
    gallery: MemoryStorage, voices: Voices
) -> None:
    recognizer = over(gallery)
    noisy = Condition.parse("noise:snr=15").apply(voices["carlo"][2])
    match = recognizer.identify(noisy)[0]
    prints = recognizer.get_caller("carlo").voiceprints
    expected = max(float(recognizer.get_embedding(noisy) @ one.embedding) for one in prints)
    assert (match.caller_id, match.similarity) == ("carlo", pytest.approx(expected, abs=1e-5))


def test_a_small_gallery_of_a_space_without_a_prior_ranks_by_similarity(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder())
    for name in ENROLLED[:3]:
        recognizer.enroll_caller(name, voices[name][0])
    matches = recognizer.identify(voices["amara"][1])
    assert all(match.llr is None and match.fpir is None for match in matches)
    assert [m.similarity for m in matches] == sorted((m.similarity for m in matches), reverse=True)
    assert matches[0].margin == pytest.approx(matches[0].similarity - matches[1].similarity)


def test_a_gallery_of_a_space_without_a_prior_says_what_its_scores_mean(voices: Voices) -> None:
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder())
    for name in ENROLLED:
        recognizer.enroll_caller(name, voices[name][0])
    matches = recognizer.identify(voices["amara"][1])
    assert matches[0].caller_id == "amara"
    assert matches[0].llr > matches[1].llr
    assert 0.0 < matches[0].fpir < matches[1].fpir <= 1.0


def test_a_calibration_of_ones_own_is_used_and_a_bad_one_refused(
    gallery: MemoryStorage, voices: Voices, tmp_path: Path
) -> None:
    path = tmp_path / "our.json"
    Calibration(scale=2 * Calibration().scale).save(path)
    own = over(gallery, calibration_path=path).identify(voices["amara"][2])[0]
    usual = over(gallery).identify(voices["amara"][2])[0]
    assert own.llr == pytest.approx(2 * usual.llr, rel=1e-4)
    for bad in (tmp_path / "missing.json", Path(__file__)):
        with pytest.raises(ConfigurationError):
            over(gallery, calibration_path=bad).identify(voices["amara"][2])


def test_a_stream_decides_by_the_target_too(gallery: MemoryStorage, voices: Voices) -> None:
    for target, accepted in ((0.3, True), (1e-12, False)):
        recognizer = over(gallery, target_fpir=target)
        with recognizer.stream() as session:
            session.feed(voices["bruno"][2])
            answer = session.finish()
        match = recognizer.identify(voices["bruno"][2])[0]
        assert (answer.caller_id, answer.accepted) == ("bruno", accepted)
        assert answer.matches[0].llr == pytest.approx(match.llr, abs=1e-3)


def test_a_noisy_stream_ends_with_the_answer_of_identify(gallery: MemoryStorage, voices: Voices) -> None:
    recognizer = over(gallery)
    noisy = Condition.parse("telephone:snr=15").apply(voices["dario"][2])
    with recognizer.stream() as session:
        session.feed(noisy)
        answer = session.finish()
    match = recognizer.identify(noisy)[0]
    assert answer.caller_id == match.caller_id
    assert answer.similarity == pytest.approx(match.similarity, abs=1e-4)
    assert answer.matches[0].llr == pytest.approx(match.llr, abs=0.01)
