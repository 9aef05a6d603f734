"""Embeddings of an application, on every store."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Harness
from stores import Follower, state, unit

from voiceprint import ExternalEncoder, OpusAgentVoiceRecognizer
from voiceprint.enrollment import own_embeddings

ROWS = 1_200  # more than are stored together


def test_a_matrix_of_embeddings_is_enrolled_once_and_found_in_another_handle(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_embeddings, "ROWS_TOGETHER", 1_000)
    encoder = ExternalEncoder("elsewhere", 16)
    recognizer = OpusAgentVoiceRecognizer(harness.storage, encoder=encoder)
    names = [f"c{n * 7919 % ROWS:05}" for n in range(ROWS)]
    vectors = np.stack([unit(n, 16) for n in range(ROWS)])
    ids = recognizer.enroll_embeddings(names, vectors, [{"n": n} for n in range(ROWS)])
    assert len(set(ids.tolist())) == harness.storage.count() == ROWS
    for storage in harness.both():
        again = OpusAgentVoiceRecognizer(storage, encoder=encoder)
        for row in (0, 999, 1_199):
            (match,) = again.identify(embedding=vectors[row], k=1, threshold=0.9)
            assert (match.caller_id, match.voiceprint_id) == (names[row], ids[row])
            assert match.metadata == {"n": row}
            assert match.accepted
    Follower("elsewhere").assert_in_step(harness.storage)
    before = harness.storage.count()
    recognizer = OpusAgentVoiceRecognizer(harness.storage, encoder=encoder)
    assert np.array_equal(recognizer.enroll_embeddings(names[:50], vectors[:50]), ids[:50])
    assert harness.storage.count() == before
    assert len(state(harness.storage)) == ROWS
