"""The connections of `PgVectorIndex` on a real server: lost ones are replaced, a read is of one moment."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import numpy as np
import psycopg
import pytest
from vectors import D, vectors

from tools.gallery_model import GalleryModel
from voiceprint.index import IndexUnavailableError
from voiceprint.index.pgvector import PgVectorIndex


def backends(url: str) -> int:
    """The number of other connections to the database."""
    with psycopg.connect(url) as connection:
        found: int
        ((found,),) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    return found


def end_backends(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_connections_that_were_lost_are_replaced_without_a_word(
    index: PgVectorIndex, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    stored = vectors(0, 20)
    index.add(range(20), stored)
    together = threading.Barrier(4)

    def several() -> None:
        index.read(lambda now: together.wait(10))

    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(several) for _ in range(4)]:
                future.result()
        assert backends(url) >= 4
        end_backends(url)
        assert index.search(stored[3], 1)[1][0, 0] == 3
        index.add([20], stored[:1])
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    index.close()
    assert backends(url) == 0


def test_a_connection_that_is_lost_during_a_read_is_an_error_once(
    index: PgVectorIndex, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    index.add(range(20), vectors(0, 20))

    def work(now: Any) -> Any:
        end_backends(url)
        return now.ids()

    with pytest.raises(IndexUnavailableError):
        index.read(work)
    assert len(index) == 20
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_read_is_of_one_moment(index: PgVectorIndex, url: str) -> None:
    index.add(range(20), vectors(0, 20))

    def work(now: Any) -> list[int]:
        before = len(now.ids())
        with closing(PgVectorIndex(url, dimension=D)) as other:
            other.add([50], vectors(1, 1))
        return [before, len(now.ids())]

    assert index.read(work) == [20, 20]
    assert len(index) == 21


@pytest.mark.parametrize("style", ["German", "SQL,DMY", "Postgres"])
def test_the_style_of_dates_of_a_server_does_not_matter(url: str, style: str) -> None:
    options = quote(f"-c datestyle={style}")
    index = PgVectorIndex(f"{url}{'&' if '?' in url else '?'}options={options}", dimension=D)
    index.add(range(20), vectors(0, 20))
    index.remove([3])
    removed = index.status().dead_since
    assert isinstance(removed, datetime)
    assert abs(datetime.now(timezone.utc) - removed) < timedelta(minutes=5)
    index.close()


def test_the_effort_is_what_new_recordings_need_also_where_voiceprints_are_of_one_recording(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voiceprint.index.pgvector._EFFORTS", (1, 2, 4, 8, 16, 32, 64))
    gallery = GalleryModel.load().gallery(1_000)
    matrix = np.repeat(gallery.matrix(), 3, axis=0) + 0.002 * vectors(1, 3_000, 256)
    index = PgVectorIndex(url, dimension=256, exact_up_to=0)
    index.fill([(np.arange(len(matrix)), matrix)])
    index.tune(0.99)
    probes = gallery.probes(500)[1]
    found = index.search(probes, 1)[0][:, 0]
    assert (found >= (probes @ matrix.T).max(axis=1) - 1e-3).mean() >= 0.97
    index.close()
