"""Clustering of the windows of a recording by voice.

k-means splits a voice in two as long as the halves differ like two voices. Two voices of a recording share
its room and line, and so differ by much less than two recordings of a voice may: the limit holds within a
recording alone.

False alarms: of recordings of one voice of 5 to 40 s, also with pauses, steps of 10 dB, over a telephone line
and in noise of 10 and 20 dB, 0 % (LibriSpeech train-clean-100 and test-clean), 0.4 % (test-other) and 1.0 %
(speechocean762, half of them children: sentences recorded one by one) count as several voices. Detections: of
recordings of two voices with 4 s each and more, 89 % as they are, 65 % over a telephone line and 66 % in
noise of 10 dB; 85 % of all of these in turns of 5 s and more, 35 % in turns of 2 s. All of these sets
determined the form of the limit, train-clean-100 and speechocean762 its two constants. See
research/several-voices.md.

A lasting change of line or noise within a recording may split a voice: noise of 15 dB from the middle on does
in 8 of 18 recordings.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.diarization.windows import HOP_S

Labels = NDArray[np.intp]
Vectors = NDArray[np.floating]

MIN_WINDOWS: Final = 6
"""Least number of windows of a voice: 2.4 s."""
ONE_VOICE: Final = 0.87
"""Least cosine of the means of any two halves of one voice, for long speech.

0.89 finds 6 % more recordings of two voices, with false alarms in 1.6 % of speechocean762."""
SAMPLING_S: Final = 0.32
"""Lowers that limit by this over the seconds of the shorter half: the means of few words differ more."""
SWITCH_COST: Final = 0.2
"""Cosine that a change of voice has to gain: windows across a change are close to both voices."""

_SMOOTHED: Final = 3  # windows in the average before the first split, without which k-means splits by words
_MAX_ITERATIONS: Final = 10


def cluster(embeddings: NDArray[np.float32]) -> Labels:
    """The voice of each window, intp[n]: 0 for the first to speak, and so on.

    embeddings: float32[n, d] of length 1, in the order of the recording.
    """
    labels = np.zeros(len(embeddings), dtype=np.intp)
    while (split := _split_any(embeddings, labels)) is not None:
        labels = split
    return _in_order(labels)


def _are_two_voices(one: Vectors, other: Vectors) -> bool:
    """Whether windows, float[n, d] and float[m, d], are of two voices."""
    shorter_s = min(len(one), len(other)) * HOP_S
    return similarity(one, other) < ONE_VOICE - SAMPLING_S / shorter_s


def similarity(one: Vectors, other: Vectors) -> float:
    """Cosine of the means of windows, float[n, d] and float[m, d]."""
    return float(_unit(one.mean(axis=0)) @ _unit(other.mean(axis=0)))


def _split_any(embeddings: NDArray[np.float32], labels: Labels) -> Labels | None:
    """The labels after a split of one voice; None where none is to be split."""
    voices = int(labels.max(initial=0)) + 1
    for voice in range(voices):
        windows = np.flatnonzero(labels == voice)
        second = halves(embeddings[windows])
        if second is None or not _are_two_voices(embeddings[windows][second], embeddings[windows][~second]):
            continue
        tried = labels.copy()
        tried[windows[second]] = voices
        tried = _resegment(embeddings, tried)
        if len(np.unique(tried)) == voices + 1 and _all_differ(embeddings, tried):
            return tried
    return None


def halves(embeddings: NDArray[np.float32], least: int = MIN_WINDOWS) -> NDArray[np.bool_] | None:
    """Split windows, float32[n, d], in two: bool[n], or None where a half has fewer than `least`."""
    if len(embeddings) < 2 * least:
        return None
    smooth = _unit(_moving_mean(embeddings))
    centered = smooth - smooth.mean(axis=0)
    second = centered @ _main_axis(centered) > 0.0
    for _ in range(_MAX_ITERATIONS):
        if min(second.sum(), (~second).sum()) < least:
            return None
        toward = _unit(smooth[second].mean(axis=0)) - _unit(smooth[~second].mean(axis=0))
        before, second = second, smooth @ toward > 0.0
        if np.array_equal(before, second):
            break
    return second if min(second.sum(), (~second).sum()) >= least else None


def _resegment(embeddings: NDArray[np.float32], labels: Labels) -> Labels:
    """The likeliest sequence of voices, by the cosines of the windows with their means (Viterbi)."""
    voices = int(labels.max()) + 1
    for _ in range(_MAX_ITERATIONS):
        if len(np.unique(labels)) < voices:
            break
        means = _unit(np.stack([embeddings[labels == voice].mean(axis=0) for voice in range(voices)]))
        before, labels = labels, _viterbi(embeddings @ means.T)
        if np.array_equal(before, labels):
            break
    return labels


def _viterbi(scores: Vectors) -> Labels:
    """The path of the greatest sum through scores, float[n, voices], less `SWITCH_COST` a change."""
    count, voices = scores.shape
    origins = np.zeros((count, voices), dtype=np.intp)
    total = scores[0].astype(np.float64)
    stay = np.arange(voices)
    for window in range(1, count):
        best = int(total.argmax())
        changed = total[best] - SWITCH_COST > total
        origins[window] = np.where(changed, best, stay)
        total = np.where(changed, total[best] - SWITCH_COST, total) + scores[window]
    labels = np.zeros(count, dtype=np.intp)
    labels[-1] = total.argmax()
    for window in range(count - 1, 0, -1):
        labels[window - 1] = origins[window, labels[window]]
    return labels


def _all_differ(embeddings: NDArray[np.float32], labels: Labels) -> bool:
    groups = [embeddings[labels == voice] for voice in np.unique(labels)]
    return all(len(group) >= MIN_WINDOWS for group in groups) and all(
        _are_two_voices(one, other) for index, one in enumerate(groups) for other in groups[:index]
    )


def _in_order(labels: Labels) -> Labels:
    """The labels, renumbered in the order of first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse], dtype=np.intp)


def _moving_mean(embeddings: NDArray[np.float32]) -> Vectors:
    padded = np.pad(embeddings, ((_SMOOTHED // 2, _SMOOTHED // 2), (0, 0)), mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, _SMOOTHED, axis=0)
    return np.asarray(views.mean(axis=-1))


def _main_axis(centered: Vectors) -> Vectors:
    """The direction of the greatest variance, float[d], of float[n, d] around its mean."""
    count, dimension = centered.shape
    if count >= dimension:
        _, vectors = np.linalg.eigh(centered.T @ centered)
        return np.asarray(vectors[:, -1])
    # The Gram matrix is the smaller one: six windows take 0.05 ms, and 3 ms by the covariance.
    _, vectors = np.linalg.eigh(centered @ centered.T)
    return np.asarray(centered.T @ vectors[:, -1])


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9))
