"""`PgVectorIndex` on a real server: like a dict after any changes, shared, of one moment, unreachable."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import psycopg
import pytest
from engines import IDS, SEEDS, IndexMachine, different
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from postgres_server import (
    QUICK,
    PostgresServer,
    fresh_pgvector_files,
    fresh_pgvector_url,
    pgvector_binaries,
)
from vectors import D, vectors

from voiceprint import StorageError
from voiceprint.index import IndexUnavailableError
from voiceprint.index.pgvector import PgVectorIndex
from voiceprint.index.rows import to_half
from voiceprint.migrations.vectors import HEAD, VERSION_TABLE

OF_AN_INDEX = "pg_class WHERE relname LIKE 'vectors\\_%' AND relkind = 'r'"


class PgVectorMachine(IndexMachine):
    """The index, and another one of the same name as in a second process."""

    url: str
    exact_up_to: int

    def begin(self) -> None:
        name = f"machine {np.random.default_rng().integers(10**12)}"
        self.index, self.other = (
            PgVectorIndex(self.url, name, D, exact_up_to=self.exact_up_to) for _ in range(2)
        )

    @property
    def reader(self) -> PgVectorIndex:
        return self.other

    @rule(gone=IDS, ids=st.sets(st.integers(0, 120), max_size=20), seed=SEEDS)
    def apply(self, gone: list[int], ids: set[int], seed: int) -> None:
        matrix = different([*ids], seed)
        self.index.apply(gone, [*ids], matrix, stamp={"revision": str(seed)})
        self.model = {id_: vector for id_, vector in self.model.items() if id_ not in gone}
        self.model.update(zip(ids, matrix, strict=True))
        assert self.other.stamp == {"revision": str(seed)}

    @rule(ids=st.sets(st.integers(0, 120)), seed=SEEDS)
    def fill(self, ids: set[int], seed: int) -> None:
        matrix = different([*ids], seed)
        half = len(ids) // 2
        self.index.fill([([*ids][:half], matrix[:half]), ([*ids][half:], matrix[half:])])
        self.model = dict(zip(ids, matrix, strict=True))

    @rule()
    def vacuum(self) -> None:
        self.index.vacuum()

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.drop()
            assert len(self.other) == 0
            self.index.close()
            self.other.close()


@pytest.mark.parametrize("exact_up_to", [0, 1000])
def test_any_run_of_changes_leaves_the_index_like_a_dict(url: str, exact_up_to: int) -> None:
    machine = type("Machine", (PgVectorMachine,), {"url": url, "exact_up_to": exact_up_to})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=5, stateful_step_count=12, deadline=None)
    )  # type: ignore[arg-type]


def test_searches_go_on_while_the_index_is_filled_anew(index: PgVectorIndex, url: str) -> None:
    index.fill([(np.arange(200), vectors(0, 200))])
    done = threading.Event()

    def search(seed: int) -> int:
        other = PgVectorIndex(url, dimension=D, exact_up_to=0)
        searched = 0
        try:
            while not done.is_set() or not searched:
                assert (other.search(vectors(seed, 2), 3)[1] >= 0).all()
                assert len(other.vectors_of([5])[1]) == 1
                searched += 1
        finally:
            other.close()
        return searched

    with ThreadPoolExecutor(3) as pool:
        searches = [pool.submit(search, seed) for seed in range(3)]
        for seed in range(15):
            index.fill([(np.arange(200), vectors(seed, 200))], stamp={"revision": str(seed)})
        done.set()
        assert all(each.result(60) for each in searches)
    assert index.stamp == {"revision": "14"}
    assert index.check() == []


def test_changes_of_many_processes_are_all_there(url: str) -> None:
    def change(number: int) -> None:
        own = PgVectorIndex(url, dimension=D, exact_up_to=0)  # which also creates the tables
        for step in range(5):
            own.add([100 * number + step], vectors([number, step], 1))
            own.remove([100 * number + step - 1] if step else [])
        own.close()

    with ThreadPoolExecutor(6) as pool:
        [*pool.map(change, range(6))]
    index = PgVectorIndex(url, dimension=D)
    assert index.ids().tolist() == [100 * number + 4 for number in range(6)]
    assert index.check() == []
    index.close()


def test_a_failed_change_changes_nothing(index: PgVectorIndex) -> None:
    index.apply((), [1, 2], vectors(0, 2), stamp={"revision": "1"})
    with pytest.raises(ValueError, match="comes twice"):
        index.fill([([3], vectors(1, 1)), ([3], vectors(2, 1))])
    with pytest.raises(ValueError, match="shape"):
        index.add([3], np.ones((1, D + 1)))
    with pytest.raises(ValueError, match="NaN"):
        index.add([3], np.full((1, D), np.nan))
    assert index.ids().tolist() == [1, 2]
    assert index.stamp == {"revision": "1"}
    assert index.check() == []


def test_an_index_of_another_dimension_is_refused(index: PgVectorIndex, url: str) -> None:
    index.add([1], vectors(0, 1))
    other = PgVectorIndex(url, dimension=D + 1)
    with pytest.raises(ValueError, match="values, not of"):
        other.search(np.ones(D + 1), 1)
    other.close()


def test_a_user_with_few_rights_is_told_which_are_needed(index: PgVectorIndex, url: str) -> None:
    role = f"few_{url.rpartition('/')[2]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
    own = url.replace("postgres@", f"{role}@")
    with closing(PgVectorIndex(own, dimension=D)) as few:
        with pytest.raises(IndexUnavailableError, match=r"permission denied .*GRANT CREATE ON SCHEMA"):
            few.add([1], vectors(0, 1))
        index.add([1], vectors(0, 1))  # by the owner
        with pytest.raises(IndexUnavailableError, match=r"permission denied .*one user, who owns the tables"):
            few.search(vectors(0, 1), 1)
    assert index.ids().tolist() == [1]


def test_an_index_of_the_first_revision_is_brought_up_with_its_vectors(url: str) -> None:
    with closing(PgVectorIndex(url, dimension=D, exact_up_to=0)) as index:
        index.fill([(np.arange(50), vectors(0, 50))], stamp={"revision": "7"})
    with psycopg.connect(url, autocommit=True) as connection:
        for column in ("dead", "dead_since", "ef_search", "recall", "tuned_at"):
            connection.execute(f"ALTER TABLE vector_indexes DROP COLUMN {column}")
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0001'")
    with closing(PgVectorIndex(url, dimension=D, exact_up_to=0)) as index:
        assert index.search(vectors(0, 1), 1)[1].tolist() == [[0]]
        assert index.stamp == {"revision": "7"}
        assert index.status() == (50, None, None, 0, 0, None)
        assert index.remove([3]) == 1
        assert index.status().dead == 1
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall() == [(HEAD,)]
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with (
        closing(PgVectorIndex(url, dimension=D)) as index,
        pytest.raises(StorageError, match="written by a newer version"),
    ):
        index.search(vectors(0, 1), 1)


def test_a_server_that_is_away_is_an_error_without_values() -> None:
    server = PostgresServer(*QUICK, programs=pgvector_binaries())
    try:
        index = PgVectorIndex(server.url(), dimension=D, exact_up_to=0)
        index.add([1, 2], vectors(0, 2))
        server.stop()
        for use in (lambda: index.search(vectors(0, 1), 1), lambda: index.add([7], vectors(3, 1))):
            with pytest.raises(IndexUnavailableError, match="cannot be used") as caught:
                use()
            assert "0." not in str(caught.value)
        server.start()
        assert index.search(vectors(0, 1), 1)[1].tolist() == [[1]]
        index.close()
    finally:
        server.end()


def test_removed_vectors_are_gone_from_the_graph_after_vacuum_and_from_the_disk_after_fill(
    url: str,
) -> None:
    index, matrix = PgVectorIndex(url, exact_up_to=0), vectors(0, 2_000, 256)

    def holding(ids: list[int]) -> set[str]:
        """The files that hold vectors of these ids, by what is in them."""
        files = fresh_pgvector_files(url)
        wanted = [to_half(matrix[id_ : id_ + 1]).tobytes() for id_ in ids]
        return {name for name, content in files.items() if any(vector in content for vector in wanted)}

    index.fill([(np.arange(2_000), matrix)])
    assert holding([5]) == {"table", "graph"}
    index.remove([5])  # of so few the server would not clean the graph by itself
    index.vacuum()
    assert "graph" not in holding([5])
    index.add([42], matrix[43:44])
    index.remove([100, 101, 102, 777, 1_999])
    index.vacuum()
    gone = [5, 42, 100, 101, 102, 777, 1_999]
    assert "graph" not in holding(gone)
    assert index.status().dead == 0
    index.fill([(np.delete(np.arange(2_000), gone), np.delete(matrix, gone, axis=0))])
    assert holding(gone) == set()
    assert holding([43]) == {"table", "graph"}
    index.close()


def test_threads_make_the_tables_of_several_databases_at_once() -> None:
    indexes = [PgVectorIndex(fresh_pgvector_url(), dimension=D) for _ in range(6)]
    barrier = threading.Barrier(len(indexes))

    def add(index: PgVectorIndex) -> int:
        barrier.wait()
        index.add([1], vectors(1, 1))
        return len(index)

    with ThreadPoolExecutor(len(indexes)) as pool:
        assert [*pool.map(add, indexes)] == [1] * len(indexes)
    for index in indexes:
        index.close()


def test_an_index_that_is_filled_anew_is_to_be_tuned_again(index: PgVectorIndex) -> None:
    index.add(range(50), vectors(0, 50))
    index.tune(0.9)
    assert index.status().tuned_at == 50
    index.fill([(range(50), vectors(1, 50))])
    status = index.status()
    assert (status.ef_search, status.recall, status.tuned_at) == (None, None, 0)


def test_vectors_that_an_open_transaction_still_reads_wait_for_another_vacuum(
    index: PgVectorIndex, url: str
) -> None:
    index.fill([(np.arange(50), vectors(0, 50))])
    with psycopg.connect(url) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM vector_indexes")
        index.remove([7, 8])
        index.vacuum()
        assert index.status().dead == 2
    index.vacuum()
    assert (index.status().dead, index.status().dead_since) == (0, None)


def test_a_database_that_was_replaced_by_an_empty_one_gets_its_tables_again(
    index: PgVectorIndex, url: str
) -> None:
    index.add([1], vectors(0, 1))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    with pytest.raises(IndexUnavailableError):
        index.search(vectors(0, 1), 1)
    index.close()
    index.add([2], vectors(0, 1))
    assert index.ids().tolist() == [2]


def test_a_reader_of_the_former_table_keeps_nobody_from_the_new_one(index: PgVectorIndex, url: str) -> None:
    index.fill([(np.arange(50), vectors(0, 50))])
    with psycopg.connect(url) as reader:
        ((table,),) = reader.execute(f"SELECT relname FROM {OF_AN_INDEX}").fetchall()
        reader.execute(f"SELECT count(*) FROM {table}")  # a dump
        with closing(PgVectorIndex(url, dimension=D, exact_up_to=0)) as other:
            other.fill([(np.arange(60), vectors(1, 60))])
        assert index.search(vectors(1, 1), 1)[1].tolist() == [[0]]
        index.remove([7])
        index.vacuum()
        assert index.status().dead == 51
        assert index.status().dead_since is not None
        reader.rollback()
        index.vacuum()
        assert reader.execute(f"SELECT count(*) FROM {OF_AN_INDEX}").fetchall() == [(1,)]
    assert (index.status().dead, index.status().dead_since) == (0, None)


def test_indexes_of_two_schemas_are_two(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector; CREATE SCHEMA tenant")
    tenant = PgVectorIndex(f"{url}?options=-csearch_path%3Dtenant,public", dimension=D)
    tenant.fill([([0], vectors(0, 1))])
    own = PgVectorIndex(url, dimension=D)
    for _ in range(2):
        own.fill([([1], vectors(1, 1))])
    for seed in (2, 3):
        tenant.fill([([seed], vectors(seed, 1))])
        tenant.vacuum()
    assert (own.ids().tolist(), tenant.ids().tolist()) == ([1], [3])
    tenant.drop()
    assert (own.ids().tolist(), tenant.ids().tolist()) == ([1], [])
    own.close()
    tenant.close()


def copy_table(url: str, generation: int) -> None:
    """Make a table of another generation from that of the one index, whose generation is 1."""
    with psycopg.connect(url, autocommit=True) as connection:
        ((table,),) = connection.execute(f"SELECT relname FROM {OF_AN_INDEX}").fetchall()
        connection.execute(f"CREATE TABLE {table.removesuffix('1')}{generation} AS SELECT * FROM {table}")


def test_a_table_that_was_left_behind_goes_with_the_next_vacuum(index: PgVectorIndex, url: str) -> None:
    index.fill([(np.arange(50), vectors(0, 50))])
    copy_table(url, 0)
    index.vacuum()
    with psycopg.connect(url) as connection:
        assert connection.execute(f"SELECT right(relname, 2) FROM {OF_AN_INDEX}").fetchall() == [("_1",)]
    assert len(index) == len(index.ids()) == 50


def test_of_two_processes_that_are_to_tune_one_does(index: PgVectorIndex, url: str) -> None:
    index.fill([(np.arange(50), vectors(0, 50))])
    with index._tables.claim() as is_first:
        assert is_first
        with closing(PgVectorIndex(url, dimension=D)) as other:
            assert other.tune(alone=True) is None
    assert index.tune(alone=True) == 1.0


def test_a_time_that_is_meant_for_searches_ends_no_filling(url: str) -> None:
    index = PgVectorIndex(f"{url}?options=-cstatement_timeout%3D300", exact_up_to=0)
    index.fill([(np.arange(4_000), vectors(0, 4_000, 256))])
    assert len(index) == 4_000
    index.close()


def test_a_server_that_ends_idle_transactions_lets_an_index_be_tuned(url: str) -> None:
    index = PgVectorIndex(f"{url}?options=-cidle_in_transaction_session_timeout%3D100", exact_up_to=0)
    index.fill([(np.arange(2_000), vectors(0, 2_000, 256))])
    with index._tables.claim():
        time.sleep(0.5)
    assert index.tune() >= 0.9
    index.close()


def test_a_database_that_was_put_back_beside_later_tables_is_filled(index: PgVectorIndex, url: str) -> None:
    index.fill([(np.arange(50), vectors(0, 50))])
    copy_table(url, 2)
    index.fill([(np.arange(60), vectors(1, 60))])
    assert len(index) == 60
    assert index.check() == []
