"""The engines of an index as the tests make them, and the run of changes that each has to stand."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray
from postgres_server import fresh_pgvector_url
from vectors import D, Model, assert_answer, assert_like, made, made_trained, vectors

from voiceprint.index import IdSet, VectorIndex, WritableIndex
from voiceprint.index.pgvector import PgVectorIndex

SEEDS = st.integers(0, 10**6)
IDS = st.lists(st.integers(0, 120), max_size=60)

_NUMBERS = itertools.count()


class Engine:
    """Makes indexes of one engine, in memory."""

    def empty(self, dimension: int = D) -> Any:
        """An index without vectors."""
        return VectorIndex(dimension)

    def again(self, index: Any) -> Any:
        """The index as another process has it, where several can."""
        return index

    def upkeep(self, index: Any) -> None:
        """Do the work of an engine beside searches and changes, such as training and vacuum."""
        index.tune()

    def settle(self, index: Any) -> None:
        """Take the changes before into the form that most vectors are in."""

    def made(self, n: int) -> tuple[WritableIndex, Model]:
        """An index of n vectors with ids 10, 20, ..., or more of them, and the same as a dict."""
        return made(n)

    def close(self) -> None:
        """Close what was made."""


class Cells(Engine):
    """The engine in memory, with most vectors in cells."""

    def empty(self, dimension: int = D) -> Any:
        return VectorIndex(dimension, exact_up_to=200)

    def upkeep(self, index: Any) -> None:
        index.train()
        index.tune()

    def settle(self, index: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            index.save(f"{folder}/index")  # merges what was changed

    def made(self, n: int) -> tuple[WritableIndex, Model]:
        return made_trained(max(n, 300))


class PgVector(Engine):
    """The engine in PostgreSQL. exact_up_to: 0 for searches by the graph alone."""

    def __init__(self, exact_up_to: int) -> None:
        self._exact_up_to = exact_up_to
        self._made: list[PgVectorIndex] = []

    def empty(self, dimension: int = D) -> PgVectorIndex:
        index = PgVectorIndex(
            shared_url(), f"engine {next(_NUMBERS)}", dimension, exact_up_to=self._exact_up_to
        )
        self._made.append(index)
        return index

    def again(self, index: PgVectorIndex) -> PgVectorIndex:
        other = PgVectorIndex(shared_url(), index.name, index.dimension, exact_up_to=self._exact_up_to)
        self._made.append(other)
        return other

    def upkeep(self, index: PgVectorIndex) -> None:
        index.tune()
        index.vacuum()

    def made(self, n: int) -> tuple[WritableIndex, Model]:
        index, matrix = self.empty(), vectors(0, n)
        ids = 10 * np.arange(1, n + 1)
        index.add(ids, matrix)
        return index, dict(zip(ids.tolist(), matrix, strict=True))

    def close(self) -> None:
        for index in self._made:
            index.close()


@cache
def shared_url() -> str:
    """The URL of the one database of this test process, whose indexes have different names."""
    return fresh_pgvector_url()


def different(ids: list[int], seed: int) -> NDArray[np.float32]:
    """Vectors of ids, all different: among equal ones, faiss's search of 4-bit codes may leave some out."""
    rows = (vectors([seed, *at], 1) for at in enumerate(ids))
    return np.concatenate([np.empty((0, D)), *rows]).astype(np.float32)


class IndexMachine(RuleBasedStateMachine):
    """An index beside a dict. Subclasses say which one, and what else its engine does.

    reader: the same index as another process has it, where there are several.
    """

    index: Any

    def begin(self) -> None:
        """Make the index."""
        raise NotImplementedError

    @property
    def reader(self) -> Any:
        return self.index

    @initialize(seed=SEEDS, n=st.integers(0, 100))
    def start(self, seed: int, n: int) -> None:
        self.model, self.sets = Model(), list[IdSet]()
        self.begin()
        self.add(list(range(n)), seed)

    @rule(ids=IDS, seed=SEEDS)
    def add(self, ids: list[int], seed: int) -> None:
        matrix = different(ids, seed)
        self.index.add(ids, matrix)
        self.model.update(zip(ids, matrix, strict=True))

    @rule(ids=st.one_of(IDS, st.lists(st.integers(0, 120), max_size=3)))
    def remove(self, ids: list[int]) -> None:
        assert self.reader.remove(ids) == len(set(ids) & set(self.model))
        for id_ in ids:
            self.model.pop(id_, None)

    @rule(ids=st.sets(st.integers(0, 130)))
    def keep_a_set(self, ids: set[int]) -> None:
        self.sets = [*self.sets[-3:], IdSet(ids)]

    @rule(seed=SEEDS, k=st.integers(1, 130), ids=st.sets(st.integers(0, 130)))
    def search_among(self, seed: int, k: int, ids: set[int]) -> None:
        queries = vectors(seed, 2)
        for some in (ids, *self.sets):
            among = {id_: vector for id_, vector in self.model.items() if id_ in some}
            others = {id_: vector for id_, vector in self.model.items() if id_ not in some}
            assert_answer(self.reader.search(queries, k, allowed=some), queries, k, among)
            assert_answer(self.index.search(queries, k, excluded=some), queries, k, others)
            found, their_vectors = self.reader.candidates(queries, k, allowed=some)
            assert set(found.tolist()) <= set(among)
            assert len(found) >= min(k, len(among))
            assert np.array_equal(their_vectors, self.index.vectors_of(found)[1])
        assert {id_ for id_ in ids if id_ in self.index} == ids & set(self.model)

    @invariant()
    def like_the_model(self) -> None:
        assert_like(self.reader, self.model)
        sample = self.index.sample(10).tolist()
        assert len(set(sample)) == min(10, len(self.model))
        assert set(sample) <= set(self.model)
        assert sample == self.reader.sample(10).tolist()


def engines() -> Iterator[tuple[str, Engine]]:
    """The engines by name."""
    yield "exact", Engine()
    yield "cells", Cells()
    yield "pgvector, exact", PgVector(5_000)
    yield "pgvector, graph", PgVector(0)
