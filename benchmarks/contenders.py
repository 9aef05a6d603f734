"""The structures that benchmarks/index.py holds against each other, behind one small interface.

`VectorIndex` locks by itself. The graphs are not safe, or do not promise to be, for a writer beside a
searcher, so that here a write waits for the search that is running, and the next search for the write.
"""

from __future__ import annotations

import importlib.util
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import faiss
import numpy as np
from numpy.typing import NDArray

from voiceprint import JSONStorage, SQLiteStorage, Storage, Voiceprint
from voiceprint.index import VectorIndex

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """What a structure is made with.

    capacity: vectors that it will ever hold. threads: of one search; build_threads: of building.
    recall: what `VectorIndex` is asked for. folder: where stores may be put.
    """

    dimension: int
    capacity: int
    threads: int
    build_threads: int
    recall: float
    folder: Path


class Contender(ABC):
    """One structure.

    efforts: how hard a search can be told to try, in rising order; empty where that is not set by hand.
    """

    title: ClassVar[str]
    needs: ClassVar[str] = "faiss"
    efforts: ClassVar[tuple[int, ...]] = ()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @classmethod
    def installed(cls) -> bool:
        """Whether the package that it needs is there."""
        return importlib.util.find_spec(cls.needs) is not None

    @abstractmethod
    def build(self, ids: Ids, vectors: Vectors) -> None:
        """Take all in, and be ready to be searched."""

    @abstractmethod
    def search(self, query: Vectors, k: int) -> Ids:
        """The ids of the k nearest of one query."""

    def set_effort(self, effort: int) -> None:  # noqa: B027  (most have none)
        """Set one of the `efforts`."""

    def about(self) -> dict[str, Any]:
        """What it says of itself."""
        return {}


class Writable(Contender):
    """One that is changed in place."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        # The gate lets a waiting writer in before the next search; a lock alone would starve it.
        self._gate, self._lock = threading.Lock(), threading.Lock()

    @abstractmethod
    def write(self, ids: Ids, vectors: Vectors) -> None:
        """Add vectors, in place of those whose ids are there."""

    @abstractmethod
    def remove(self, ids: Ids) -> None:
        """Take vectors out."""

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Around a search beside a writer."""
        with self._gate:
            pass
        with self._lock:
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around a write beside a searcher."""
        with self._gate, self._lock:
            yield


class Indexed(Writable):
    """The product's index, with what recall it is asked for."""

    title = "VectorIndex"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.index = make_index(settings)

    def build(self, ids: Ids, vectors: Vectors) -> None:
        self.index.add(ids, vectors)
        wait(self.index)

    def search(self, query: Vectors, k: int) -> Ids:
        found: Ids = self.index.search(query, k)[1][0]
        return found

    def write(self, ids: Ids, vectors: Vectors) -> None:
        self.index.add(ids, vectors)

    def remove(self, ids: Ids) -> None:
        self.index.remove(ids)

    def about(self) -> dict[str, Any]:
        return status(self.index)

    @contextmanager
    def searching(self) -> Iterator[None]:
        yield

    writing = searching


def make_index(settings: Settings) -> VectorIndex:
    """A `VectorIndex` with those of the settings that it has."""
    wanted = {"threads": settings.threads, "recall": settings.recall}
    known = inspect.signature(VectorIndex).parameters
    return VectorIndex(settings.dimension, **{name: wanted[name] for name in wanted if name in known})


def wait(index: VectorIndex) -> None:
    """Until the index has done what it does in the background."""
    getattr(index, "wait", lambda: None)()


def status(index: VectorIndex) -> dict[str, Any]:
    """The fields of the index's status that JSON can hold."""
    now = getattr(index, "status", lambda: None)()
    plain = {} if now is None else {name: getattr(now, name) for name in now.__dataclass_fields__}
    return {name: value for name, value in plain.items() if isinstance(value, str | int | float | None)}


class Flat(Contender):
    """faiss's exhaustive search."""

    title = "faiss flat"

    def build(self, ids: Ids, vectors: Vectors) -> None:
        self.ids = ids.copy()
        self.index = faiss.IndexFlatIP(self.settings.dimension)
        self.index.add(vectors)

    def search(self, query: Vectors, k: int) -> Ids:
        return self.ids[self.index.search(query[None], k)[1][0]]


class HNSWLib(Writable):
    """hnswlib: a graph, with removal by marking."""

    title = "hnswlib"
    needs = "hnswlib"
    efforts = (10, 20, 40, 80, 160, 320, 640, 1_280)

    def build(self, ids: Ids, vectors: Vectors) -> None:
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=self.settings.dimension)
        self.index.init_index(
            max_elements=self.settings.capacity, ef_construction=200, M=16, allow_replace_deleted=True
        )
        self.index.add_items(vectors, ids, num_threads=self.settings.build_threads)
        self.index.set_num_threads(self.settings.threads)

    def set_effort(self, effort: int) -> None:
        self.index.set_ef(effort)

    def search(self, query: Vectors, k: int) -> Ids:
        return self.index.knn_query(query, k=k)[0][0].astype(np.int64)

    def write(self, ids: Ids, vectors: Vectors) -> None:
        self.index.add_items(vectors, ids)

    def remove(self, ids: Ids) -> None:
        for id_ in ids.tolist():
            self.index.mark_deleted(id_)

    def about(self) -> dict[str, Any]:
        return {"M": 16, "ef_construction": 200}


class USearch(Writable):
    """usearch: a graph."""

    title = "usearch"
    needs = "usearch"
    efforts = HNSWLib.efforts

    def build(self, ids: Ids, vectors: Vectors) -> None:
        from usearch.index import Index

        self.index = Index(
            ndim=self.settings.dimension, metric="ip", dtype="f32", connectivity=16, expansion_add=200
        )
        self.index.add(ids.astype(np.uint64), vectors, threads=self.settings.build_threads)

    def set_effort(self, effort: int) -> None:
        self.index.expansion_search = effort

    def search(self, query: Vectors, k: int) -> Ids:
        return self.index.search(query, k, threads=self.settings.threads).keys.astype(np.int64)

    def write(self, ids: Ids, vectors: Vectors) -> None:
        for id_, vector in zip(ids.tolist(), vectors, strict=True):
            if id_ in self.index:
                self.index.remove(id_)
            self.index.add(id_, vector)

    def remove(self, ids: Ids) -> None:
        for id_ in ids.tolist():
            self.index.remove(id_)

    def about(self) -> dict[str, Any]:
        return {"connectivity": 16, "expansion_add": 200}


class Loop(Contender):
    """What OpusAgent does today: every record is read from the store, and compared one by one."""

    title = "loop over JSON"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.storage = self.open(settings.folder)

    def open(self, folder: Path) -> Storage:
        """The store of this loop."""
        return JSONStorage(folder / "loop.json")

    def build(self, ids: Ids, vectors: Vectors) -> None:
        # A caller for each print, as OpusAgent kept one each; the name is the print's id.
        names = (f"{id_:010}" for id_ in ids.tolist())
        self.storage.save_many(Voiceprint(*pair) for pair in zip(names, vectors, strict=True))

    def search(self, query: Vectors, k: int) -> Ids:
        compared = [
            (
                np.dot(query, voiceprint.embedding)
                / (np.linalg.norm(query) * np.linalg.norm(voiceprint.embedding)),
                voiceprint.caller_id,
            )
            for voiceprint in self.storage.get_all()
        ]
        compared.sort(reverse=True)
        return np.array([int(name) for _, name in compared[:k]])


class SQLiteLoop(Loop):
    """The same over SQLite."""

    title = "loop over SQLite"

    def open(self, folder: Path) -> Storage:
        return SQLiteStorage(folder / "loop.db")


CONTENDERS: dict[str, type[Contender]] = {
    "index": Indexed,
    "flat": Flat,
    "hnswlib": HNSWLib,
    "usearch": USearch,
    "loop-json": Loop,
    "loop-sqlite": SQLiteLoop,
}
