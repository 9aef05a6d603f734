"""The index in PostgreSQL follows its store in every process, on one server or two, never stale or wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from postgres_server import QUICK, PostgresServer, fresh_pgvector_url, pgvector_binaries
from vectors import assert_answer, assert_like, vectors
from voices import BandEncoder

from voiceprint import (
    ConfigurationError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    SQLiteStorage,
    Storage,
    StorageUnavailableError,
    VoiceFingerprintConfig,
    Voiceprint,
)
from voiceprint.identification import followed as followed_module
from voiceprint.identification import follower as follower_module
from voiceprint.identification.followed import FollowedIndex
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.server_engine import ServerEngine
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.identification.snapshots import IndexSettings
from voiceprint.index.pgvector import PgVectorIndex

D = 8
SPACE = "tests"
SEEDS = st.integers(0, 10**6)
PATIENCE_S = 180.0


@pytest.fixture(autouse=True)
def _always_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiceprint.identification.server_engine.EXACT_UP_TO", 0)


def process_of(storage: Storage, *urls: str) -> Gallery:
    """A gallery as another process over the store has it."""
    return Gallery(storage, SharedIndex(SPACE, D, IndexSettings(urls=urls)))


def index_of(gallery: Gallery) -> FollowedIndex:
    index = gallery.refresh()
    assert isinstance(index, FollowedIndex)
    return index


def parts_of(gallery: Gallery) -> list[PgVectorIndex]:
    engine = gallery._shared.engine
    assert isinstance(engine, ServerEngine)
    return engine._parts_of(gallery.storage.identity())


def print_of(caller_id: str, seed: int, id_: int | None = None) -> Voiceprint:
    return Voiceprint(caller_id, vectors(seed, 1)[0], encoder=SPACE, id=id_)


def content(storage: Storage) -> dict[int, np.ndarray]:
    """The vectors as an index keeps them."""
    return {
        one.id: one.embedding.astype(np.float16).astype(np.float32)
        for one in storage.get_all()
        if one.id is not None
    }


class FollowedMachine(RuleBasedStateMachine):
    """Two processes over one store, whose threads follow it whenever they like, beside the store itself."""

    urls: tuple[str, ...]

    @initialize(n=st.integers(0, 60))
    def start(self, n: int) -> None:
        self.storage = MemoryStorage(max_voiceprints_per_caller=2)
        self.storage.save_many([print_of(f"c{number % 40}", number) for number in range(n)])
        self.processes = [process_of(self.storage, *self.urls) for _ in range(2)]

    @rule(caller=st.integers(0, 40), seed=SEEDS)
    def save(self, caller: int, seed: int) -> None:
        self.storage.save(print_of(f"c{caller}", seed))

    @rule(first=st.integers(0, 40), count=st.integers(1, 30), seed=SEEDS)
    def save_many(self, first: int, count: int, seed: int) -> None:
        self.storage.save_many([print_of(f"c{first + number}", seed + number) for number in range(count)])

    @rule(caller=st.integers(0, 40), seed=SEEDS)
    def replace(self, caller: int, seed: int) -> None:
        found = self.storage.get(f"c{caller}")
        if found is not None:
            self.storage.save(print_of(found.caller_id, seed, found.voiceprints[0].id))

    @rule(caller=st.integers(0, 40))
    def delete(self, caller: int) -> None:
        self.storage.delete(f"c{caller}")

    @rule(process=st.integers(0, 1))
    def restart(self, process: int) -> None:
        self.processes[process] = process_of(self.storage, *self.urls)

    @rule(process=st.integers(0, 1))
    def rebuild(self, process: int) -> None:
        self.processes[process].rebuild()

    @rule(process=st.integers(0, 1))
    def wait_and_vacuum(self, process: int) -> None:
        index = index_of(self.processes[process])
        assert index.wait(PATIENCE_S)
        index.vacuum()
        assert index.status().dead == 0

    @rule(seed=SEEDS, k=st.integers(1, 70), ids=st.sets(st.integers(0, 120)))
    def search_among(self, seed: int, k: int, ids: set[int]) -> None:
        queries, model = vectors(seed, 2), content(self.storage)
        among = {id_: vector for id_, vector in model.items() if id_ in ids}
        others = {id_: vector for id_, vector in model.items() if id_ not in ids}
        for process in self.processes:
            index = index_of(process)
            assert_answer(index.search(queries, k, allowed=ids), queries, k, among)
            assert_answer(index.search(queries, k, excluded=ids), queries, k, others)
            found, their_vectors = index.candidates(queries, k, allowed=ids)
            assert set(found.tolist()) <= set(among)
            assert len(found) >= min(k, len(among))
            assert np.array_equal(their_vectors, index.vectors_of(found)[1])

    @invariant()
    def like_the_store(self) -> None:
        model = content(self.storage)
        samples = []
        for process in self.processes:
            index = index_of(process)
            assert_like(index, model)
            samples.append(index.sample(10).tolist())
        assert samples[0] == samples[1]  # so that all processes have the same thresholds
        assert len(set(samples[0])) == min(10, len(model))
        assert set(samples[0]) <= set(model)

    def teardown(self) -> None:
        if hasattr(self, "processes"):
            for process in self.processes:
                assert process.check() == []


@pytest.mark.parametrize("servers", [1, 2])
def test_whatever_happens_to_the_store_each_process_answers_by_it(
    servers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_module, "_AT_ONCE", 7)
    monkeypatch.setattr(follower_module, "_GATHERED_S", 0.0)
    urls = tuple(fresh_pgvector_url() for _ in range(servers))
    machine = type("Machine", (FollowedMachine,), {"urls": urls})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=4, stateful_step_count=12, deadline=None)
    )


def test_the_thread_brings_two_servers_up_and_memory_is_free_again() -> None:
    servers = [PostgresServer(*QUICK, programs=pgvector_binaries()) for _ in range(2)]
    try:
        storage = MemoryStorage()
        storage.save_many([print_of(f"c{number}", number) for number in range(40)])
        gallery = process_of(storage, *(server.url() for server in servers))
        storage.save_many([print_of(f"d{number}", 100 + number) for number in range(40)])
        storage.delete("c3")
        index = index_of(gallery)
        assert index.wait(PATIENCE_S)
        for _ in range(2):  # what a part was seen to have is dropped at the next
            gallery.refresh()
        assert index.status().buffered == 0
        sizes = [len(part) for part in parts_of(gallery)]
        assert sum(sizes) == 79
        assert min(sizes) >= 39
        assert_like(index, content(storage))
        servers[1].stop()
        with pytest.raises(StorageUnavailableError, match="cannot be used"):
            index.search(vectors(0, 1), 1)
        servers[1].start()
        assert_like(index, content(storage))
    finally:
        for server in servers:
            server.end()


AT_EXIT = """
import atexit, sys
sys.path.insert(0, sys.argv[1])
from test_followed_index import content, index_of, print_of, process_of
from vectors import assert_like
from voiceprint import MemoryStorage

storage = MemoryStorage()
storage.save_many([print_of(f"c{number}", number) for number in range(20)])
gallery = process_of(storage, *sys.argv[2:])
atexit.register(lambda: assert_like(index_of(gallery), content(storage)))
gallery.refresh()
storage.save(print_of("late", 99))
gallery.refresh()
"""


def test_two_servers_are_also_asked_while_the_interpreter_ends() -> None:
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            AT_EXIT,
            str(Path(__file__).parent),
            fresh_pgvector_url(),
            fresh_pgvector_url(),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_removed_vectors_are_vacuumed_by_whichever_process_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    url, storage = fresh_pgvector_url(), MemoryStorage()
    storage.save_many([print_of(f"c{number}", number) for number in range(20)])
    first = process_of(storage, url)
    index_of(first)
    storage.delete("c3")
    assert index_of(first).wait(PATIENCE_S)
    (part,) = parts_of(first)
    assert part.status().dead == 1
    assert part.status().dead_since is not None
    monkeypatch.setattr(follower_module, "VACUUM_S", 0.01)
    second = process_of(storage, url)
    deadline = time.monotonic() + PATIENCE_S
    while part.status().dead and time.monotonic() < deadline:
        second.refresh()
        index_of(second).look()
        time.sleep(0.02)
    assert (part.status().dead, part.status().dead_since) == (0, None)


def counted_fills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with each index that is filled from now on."""
    filled, fill = list[int](), PgVectorIndex.fill

    def counted(index: PgVectorIndex, *arguments: object, **options: object) -> None:
        fill(index, *arguments, **options)  # type: ignore[arg-type]
        filled.append(1)

    monkeypatch.setattr(PgVectorIndex, "fill", counted)
    return filled


def test_two_processes_that_start_at_once_build_the_index_once(monkeypatch: pytest.MonkeyPatch) -> None:
    url, storage = fresh_pgvector_url(), MemoryStorage()
    storage.save_many([print_of(f"c{number}", number) for number in range(200)])
    filled = counted_fills(monkeypatch)
    galleries = [process_of(storage, url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        [*pool.map(lambda gallery: gallery.refresh(), galleries)]
    assert len(filled) == 1
    for gallery in galleries:
        assert_like(index_of(gallery), content(storage))


def test_of_the_processes_that_the_feed_does_not_reach_one_builds_the_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voiceprint.storage.state.MAX_TOMBSTONES", 2)
    url, storage = fresh_pgvector_url(), MemoryStorage()
    storage.save_many([print_of(f"c{number}", number) for number in range(20)])
    galleries = [process_of(storage, url) for _ in range(3)]
    for gallery in galleries:
        assert_like(index_of(gallery), content(storage))
    for number in range(6):
        storage.delete(f"c{number}")
    filled = counted_fills(monkeypatch)
    for gallery in galleries:
        gallery.scorer()
        before = gallery._shared.scorers._scorer
        assert before is not None
        assert_like(index_of(gallery), content(storage))
        assert gallery._shared.scorers._scorer is not before  # it has embeddings of the deleted ones
    assert len(filled) == 1


def test_an_index_that_was_put_back_to_an_earlier_state_is_brought_up_from_the_store() -> None:
    url, storage = fresh_pgvector_url(), MemoryStorage()
    storage.save_many([print_of(f"c{number}", number) for number in range(20)])
    gallery = process_of(storage, url)
    index = index_of(gallery)
    (part,) = parts_of(gallery)
    before, old = part.stamp, (part.ids(), part.vectors_of(part.ids())[1])
    storage.delete("c3")
    storage.save(print_of("new", 77))
    assert index_of(gallery).wait(PATIENCE_S)
    for _ in range(2):
        gallery.refresh()  # this process does not hold the changes any more
    part.fill([old], stamp=before)  # as `pg_restore` of an older dump
    with pytest.raises(StorageUnavailableError, match="Try again"):
        index.search(vectors(77, 1), 1)
    assert_like(index_of(gallery), content(storage))
    part.drop()
    with pytest.raises(StorageUnavailableError, match="Try again"):
        index_of(gallery).search(vectors(77, 1), 1)
    assert_like(index_of(gallery), content(storage))


def test_an_index_that_was_put_back_to_changes_that_are_still_in_memory_is_brought_up_from_there() -> None:
    url, storage = fresh_pgvector_url(), MemoryStorage()
    storage.save_many([print_of(f"c{number}", number) for number in range(20)])
    gallery = process_of(storage, url)
    index_of(gallery)
    (part,) = parts_of(gallery)
    before, old = part.stamp, (part.ids(), part.vectors_of(part.ids())[1])
    storage.delete("c3")
    assert index_of(gallery).wait(PATIENCE_S)
    part.fill([old], stamp=before)
    storage.save(print_of("new", 77))
    index = index_of(gallery)
    assert index.wait(PATIENCE_S / 6)  # by the thread, without another search
    assert_like(index, content(storage))


def test_check_tells_of_what_only_the_server_or_only_the_store_has() -> None:
    url, storage = fresh_pgvector_url(), MemoryStorage()
    ids = [one.id for one in storage.save_many([print_of(f"c{number}", number) for number in range(3)])]
    gallery = process_of(storage, url)
    assert gallery.check() == []
    (part,) = parts_of(gallery)
    part.apply([ids[1]], [999], vectors(5, 1))
    assert [(finding.code, finding.place) for finding in gallery.check()] == [
        ("not_indexed", f"voiceprint {ids[1]}"),
        ("not_stored", "voiceprint 999"),
    ]
    gallery.rebuild()
    assert gallery.check() == []


def test_an_index_that_cannot_have_the_dimension_of_the_encoder_is_told() -> None:
    url, storage = fresh_pgvector_url(), MemoryStorage()
    storage.save(print_of("c", 1))
    index_of(process_of(storage, url))
    for dimension, words in ((D + 1, "values, not of 9"), (5_000, "to 4000 is allowed")):
        other = Gallery(storage, SharedIndex(SPACE, dimension, IndexSettings(urls=(url,))))
        with pytest.raises(ConfigurationError, match=words):
            other.refresh()


def test_a_store_that_was_rewound_has_its_index_built_anew() -> None:
    url, storage = fresh_pgvector_url(), MemoryStorage()
    storage.save_many([print_of(f"c{number}", number) for number in range(20)])
    gallery = process_of(storage, url)
    assert_like(index_of(gallery), content(storage))
    (part,) = parts_of(gallery)
    stamp = dict(part.stamp)
    part.fill([([999], vectors(5, 1))], stamp=stamp | {"token": "of another history"})
    other = process_of(storage, url)
    assert_like(index_of(other), content(storage))


def test_the_server_killed_under_writers_and_searchers_loses_nothing_and_names_nobody_deleted() -> None:
    server = PostgresServer(programs=pgvector_binaries())
    try:
        config = VoiceFingerprintConfig(
            storage_backend="postgresql", database_url=server.url(), index="pgvector", encoder="onnx"
        )

        def recognizer() -> OpusAgentVoiceRecognizer:
            return OpusAgentVoiceRecognizer(config=config, encoder=BandEncoder())

        dimension = BandEncoder().dimension
        stop, lock = threading.Event(), threading.Lock()
        enrolled, deleted = dict[str, np.ndarray](), dict[str, np.ndarray]()
        faults, answered = list[str](), [0]

        def enroll(mine: OpusAgentVoiceRecognizer, name: str, vector: np.ndarray) -> None:
            with suppress(StorageUnavailableError):
                mine.enroll_caller(name, embedding=vector, encoder=mine.encoder.name)
                with lock:
                    enrolled[name] = vector

        def delete(mine: OpusAgentVoiceRecognizer, name: str) -> None:
            with lock:
                vector = enrolled.pop(name, None)  # searchers expect nothing of it from here on
            if vector is not None:
                with suppress(StorageUnavailableError):
                    mine.delete_caller(name)
                    with lock:
                        deleted[name] = vector

        def write(number: int) -> None:
            with recognizer() as mine:
                turn = 0
                while not stop.is_set():
                    enroll(mine, f"w{number}-{turn}", vectors([number, turn], 1, dimension)[0])
                    # Rarely, as each makes the scorer of a gallery of this size anew.
                    if turn % 5 == 4:
                        delete(mine, f"w{number}-{turn - 4}")
                    turn += 1
                    time.sleep(0.01)

        def search(number: int) -> None:
            random = np.random.default_rng(number)
            with recognizer() as mine:
                while not stop.is_set():
                    with lock:
                        names = [*enrolled], [*deleted]
                    for among, wanted in zip(names, (True, False), strict=True):
                        if not among:
                            continue
                        name = among[random.integers(len(among))]
                        vector = (enrolled | deleted).get(name)
                        if vector is None:
                            continue
                        try:
                            found = mine.identify(embedding=vector, encoder=mine.encoder.name, k=1)
                        except StorageUnavailableError:
                            continue
                        answered[0] += 1
                        first = found[0].caller_id if found else None
                        with lock:
                            is_expected = name in enrolled if wanted else True
                        if is_expected and (first == name) != wanted:
                            faults.append(f"{name} {'not found' if wanted else 'named'}")

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        threads += [threading.Thread(target=search, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                wait_until(lambda: answered[0] >= 10)
                server.kill()
                answered[0] = 0
                server.start()
            wait_until(lambda: answered[0] >= 10)
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE_S)
        assert faults == []
        assert deleted
        SharedIndex.forget_all()  # as a process that starts now
        with recognizer() as late:
            assert set(late.storage.get_callers(enrolled)) == set(enrolled)
            assert late.storage.get_callers(deleted) == {}
            assert late.check() == []
            assert late._gallery.refresh().wait(PATIENCE_S)
            assert late.check() == []
        SharedIndex.forget_all()
    finally:
        server.end()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def recognizer(tmp_path: Path) -> Iterator[OpusAgentVoiceRecognizer]:
    config = VoiceFingerprintConfig(index="pgvector", index_url=fresh_pgvector_url())
    storage = SQLiteStorage(tmp_path / "callers.db")
    with OpusAgentVoiceRecognizer(storage, config=config, encoder=BandEncoder()) as made:
        yield made
    SharedIndex.forget_all()


def test_a_recognizer_enrolls_finds_and_deletes_by_the_index_in_postgresql(
    recognizer: OpusAgentVoiceRecognizer,
) -> None:
    space, dimension = recognizer.encoder.name, recognizer.encoder.dimension
    for number in range(30):
        recognizer.enroll_caller(f"c{number}", embedding=vectors(number, 1, dimension)[0], encoder=space)
    found = recognizer.identify(embedding=vectors(7, 1, dimension)[0], encoder=space)
    assert found[0].caller_id == "c7"
    status = recognizer.rebuild_index()
    assert (status.engine, status.structure, status.vectors) == ("pgvector", "hnsw", 30)
    assert recognizer.snapshot_path() is None
    assert [(one.path, one.state) for one in recognizer.snapshots()] == [(None, "off")]
    receipt = recognizer.delete_caller("c7", receipt=True)
    (place,) = [one for one in receipt.places if "index" in one.place]
    assert place.state == "kept_by_server"
    assert recognizer.identify(embedding=vectors(7, 1, dimension)[0], encoder=space)[0].caller_id != "c7"
    assert recognizer.check() == []
    assert recognizer.left_out_scores().gallery_size == 29


def test_a_command_that_only_deletes_removes_the_vector_from_the_server(tmp_path: Path) -> None:
    url = fresh_pgvector_url()

    def recognizer() -> OpusAgentVoiceRecognizer:
        config = VoiceFingerprintConfig(index="pgvector", index_url=url)
        storage = SQLiteStorage(tmp_path / "callers.db")
        SharedIndex.forget_all()  # as a process that starts now
        return OpusAgentVoiceRecognizer(storage, config=config, encoder=BandEncoder())

    with recognizer() as first:
        for number in range(20):
            vector = vectors(number, 1, first.encoder.dimension)[0]
            first.enroll_caller(f"c{number}", embedding=vector, encoder=first.encoder.name)
        first.rebuild_index()
        (part,) = first._gallery._shared.engine._parts_of(first.storage.identity())
    assert len(part) == 20
    with recognizer() as second:
        second.delete_caller("c3")
    assert (len(part), part.status().dead) == (19, 1)


def test_a_fork_searches_and_changes_by_connections_of_its_own(recognizer: OpusAgentVoiceRecognizer) -> None:
    space, dimension = recognizer.encoder.name, recognizer.encoder.dimension

    def first(number: int) -> str:
        found = recognizer.identify(embedding=vectors(number, 1, dimension)[0], encoder=space)
        return found[0].caller_id

    for number in range(20):
        recognizer.enroll_caller(f"c{number}", embedding=vectors(number, 1, dimension)[0], encoder=space)
    assert first(3) == "c3"
    child = os.fork()
    if not child:
        status = 1
        try:
            recognizer.enroll_caller("child", embedding=vectors(99, 1, dimension)[0], encoder=space)
            status = 0 if (first(4), first(99)) == ("c4", "child") else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert (first(5), first(99)) == ("c5", "child")


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="VOICE_INDEX_URL is 'http"):
        VoiceFingerprintConfig(index_url="http://user:secret@host/db")
    config = VoiceFingerprintConfig(index="pgvector", index_url="postgresql://user:secret@host:port/vectors")
    storage = SQLiteStorage(tmp_path / "callers.db")
    with pytest.raises(ConfigurationError, match="not the URL of a PostgreSQL") as caught:
        OpusAgentVoiceRecognizer(storage, config=config, encoder=BandEncoder())
    assert "secret" not in str(caught.value)
    url = "postgresql://user:secret@host/vectors"
    config = VoiceFingerprintConfig(index="pgvector", index_url=f"{url} {url}2")
    assert len(config.index_urls) == 2
    assert "secret" not in repr(config)
    assert "secret" not in repr(IndexSettings.of(config))


def test_a_sample_ends_though_another_process_removes_nearly_all_meanwhile() -> None:
    url, storage = fresh_pgvector_url(), MemoryStorage()
    storage.save_many([print_of(f"c{number}", number) for number in range(50)])
    index, other = index_of(process_of(storage, url)), process_of(storage, url)
    assert len(index) == 50
    for number in range(45):
        storage.delete(f"c{number}")
    assert index_of(other).wait(PATIENCE_S)
    assert len(index.sample(10)) == 5
    for number in range(45, 50):
        storage.delete(f"c{number}")
    assert index_of(other).wait(PATIENCE_S)
    assert len(index.sample(10)) == 0


def copied(path: Path, name: str) -> SQLiteStorage:
    """A copy of a closed store, as a backup that was put back has it."""
    return SQLiteStorage(shutil.copy(path, path.with_name(name)))


def test_a_copy_of_the_store_that_changes_the_same_index_is_noticed(tmp_path: Path) -> None:
    url = fresh_pgvector_url()
    with SQLiteStorage(tmp_path / "callers.db") as storage:
        storage.save_many([print_of(f"c{number}", number) for number in range(20)])
    mine, theirs = copied(tmp_path / "callers.db", "mine.db"), copied(tmp_path / "callers.db", "theirs.db")
    process, other = process_of(mine, url), process_of(theirs, url)
    index_of(process).wait(PATIENCE_S)
    theirs.save(print_of("theirs", 500))
    assert index_of(other).wait(PATIENCE_S)
    mine.save(print_of("mine", 600))
    index_of(process).look()  # the servers have as many changes as the store, and others
    for _ in range(3):
        assert_like(index_of(process), content(mine))
    with suppress(StorageUnavailableError):  # its thread may have noticed already
        index_of(other).look()
    assert_like(index_of(other), content(theirs))


def test_a_server_that_still_has_the_changes_of_a_rewound_store_is_filled_anew(tmp_path: Path) -> None:
    urls = fresh_pgvector_url(), fresh_pgvector_url()
    with SQLiteStorage(tmp_path / "callers.db") as storage:
        storage.save_many([print_of(f"c{number}", number) for number in range(20)])
    with copied(tmp_path / "callers.db", "before.db") as before:
        for number in range(10):
            before.save(print_of(f"x{number}", 100 + number))
        process_of(before, *urls).refresh()
    rewound = copied(tmp_path / "callers.db", "rewound.db")
    for number in range(4):
        rewound.save(print_of(f"y{number}", 200 + number))
    killed = process_of(rewound, *urls)._shared.engine  # after it has filled the first server
    assert isinstance(killed, ServerEngine)
    killed._fill(rewound, rewound.identity(), 0, lambda: rewound.scan(encoder=SPACE), anew=False)
    assert_like(index_of(process_of(rewound, *urls)), content(rewound))
