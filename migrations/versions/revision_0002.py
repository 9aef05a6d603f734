"""Callers with several voiceprints, a change feed, and an identity."""

from __future__ import annotations

import uuid
from typing import Any, NoReturn

import numpy as np
import orjson
import sqlalchemy as sa
from alembic import op

from voiceprint.errors import InvalidArgumentError, StorageCorruptError
from voiceprint.validation import check_caller_id, check_embedding, check_metadata, check_time

revision = "0002"
down_revision = "0001"

_OLD = "voiceprints_0001"
_SPACE = "resemblyzer"
_BATCH = 1_000
_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_Id = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the tables and take every old row over."""
    op.rename_table("voiceprints", _OLD)
    store = op.create_table(
        "store",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("revision", _Number, nullable=False),
        sa.Column("next_id", _Number, nullable=False),
        sa.Column("feed_floor", _Number, nullable=False),
        sa.CheckConstraint("id = 1", name="ck_store_one_row"),
    )
    callers = op.create_table(
        "callers",
        sa.Column("caller_id", _Id, primary_key=True),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text),
        sa.Column("last_seen", sa.Text),
    )
    voiceprints = op.create_table(
        "voiceprints",
        sa.Column("id", _Number, primary_key=True, autoincrement=False),
        sa.Column("caller_id", _Id, nullable=False),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("encoder", sa.Text, nullable=False),
        sa.Column("embedding", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Text),
        sa.Column("revision", _Number, nullable=False),
        sa.UniqueConstraint("caller_id", "slot", name="uq_voiceprints_caller_id_slot"),
        sa.CheckConstraint("slot >= 0", name="ck_voiceprints_slot"),
        sa.CheckConstraint(
            "length(embedding) > 0 AND length(embedding) % 4 = 0", name="ck_voiceprints_embedding"
        ),
        sa.CheckConstraint(
            "encoder <> 'resemblyzer' OR length(embedding) = 1024", name="ck_voiceprints_resemblyzer"
        ),
        sa.ForeignKeyConstraint(
            ["caller_id"], ["callers.caller_id"], name="fk_voiceprints_caller_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_voiceprints_encoder_id", "voiceprints", ["encoder", "id"])
    op.create_index("ix_voiceprints_encoder_revision", "voiceprints", ["encoder", "revision"])
    op.create_table(
        "tombstones",
        sa.Column("revision", _Number, primary_key=True, autoincrement=False),
        sa.Column("voiceprint_id", _Number, primary_key=True, autoincrement=False),
    )
    taken = _take_over(op.get_bind(), callers, voiceprints)
    op.drop_table(_OLD)
    # A feed that starts after the old rows: who followed them before has no revision to ask from.
    at = 1 if taken else 0
    row = {"id": 1, "identity": uuid.uuid4().hex, "revision": at, "next_id": taken + 1, "feed_floor": at}
    op.bulk_insert(store, [row])


def _take_over(connection: sa.Connection, callers: sa.Table, voiceprints: sa.Table) -> int:
    """Move the old rows; gives how many there were."""
    names = ("caller_id", "embedding", "metadata", "created_at", "last_seen")
    # Read as it is in the file: an old row may hold anything under any column.
    old = sa.table(_OLD, *(sa.column(name, sa.types.NullType()) for name in names))
    rows = connection.execute(sa.select(old).order_by(old.c.caller_id)).mappings()
    taken = 0
    for batch in rows.partitions(_BATCH):
        records = [_taken_over(row) for row in batch]
        connection.execute(sa.insert(callers), [caller for caller, _ in records])
        prints = [print_ | {"id": taken + n} for n, (_, print_) in enumerate(records, start=1)]
        connection.execute(sa.insert(voiceprints), prints)
        taken += len(records)
    return taken


def _taken_over(row: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The caller and the voiceprint that an old row becomes."""
    name = row["caller_id"]
    try:
        caller_id = check_caller_id(name)
        created_at = check_time(row["created_at"])
        caller = {
            "caller_id": caller_id,
            "metadata": orjson.dumps(check_metadata(_parsed(row["metadata"], name))).decode(),
            "created_at": created_at,
            "last_seen": check_time(row["last_seen"]),
        }
        blob = row["embedding"]
        if not isinstance(blob, bytes) or len(blob) % 4:
            _refuse(name, "an embedding that is not float32 values")
        embedding = check_embedding(np.frombuffer(blob, dtype="<f4"), _SPACE)
    except InvalidArgumentError as error:
        raise StorageCorruptError(_message(name, f"a value that cannot be kept: {error}")) from error
    return caller, {
        "caller_id": caller_id,
        "slot": 0,
        "position": 0,
        "encoder": _SPACE,
        "embedding": embedding.astype("<f4").tobytes(),
        "created_at": created_at,
        "revision": 1,
    }


def _parsed(metadata: Any, name: object) -> Any:
    if metadata is None or metadata == "":
        return None
    try:
        return orjson.loads(metadata)
    except (orjson.JSONDecodeError, RecursionError):  # not chained: it quotes the metadata
        _refuse(name, "metadata that is not JSON")


def _refuse(name: object, what: str) -> NoReturn:
    raise StorageCorruptError(_message(name, what)) from None


def _message(name: object, what: str) -> str:
    place = f"caller {name[:40]!r}" if isinstance(name, str) else "a caller whose id is not text"
    return f"the record of {place} holds {what.rstrip('.')}."
