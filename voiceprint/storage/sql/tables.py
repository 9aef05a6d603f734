"""The tables of the SQL store, as the newest revision of voiceprint.migrations makes them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = ["callers", "commits", "deletions", "metadata", "simulated", "store", "tombstones", "voiceprints"]


class _Blob(LargeBinary):
    """Bytes as the driver gives them. The converter of LargeBinary fails on what a damaged row may hold."""

    cache_ok = True

    def result_processor(self, _dialect: Any, _coltype: Any) -> None:
        return None


metadata = MetaData()

# In SQLite only a column of the type INTEGER can be the row's own key.
_Number = BigInteger().with_variant(Integer, "sqlite")
# Callers are paged in the order of code points, which is how SQLite compares text.
_CallerId = Text().with_variant(Text(collation="C"), "postgresql")

# One row: which store this is, and where it stands. `next_id` rather than the database's own
# numbering, because an id that was given out must not come back after its row is gone.
store = Table(
    "store",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("identity", Text, nullable=False),
    Column("revision", _Number, nullable=False),
    Column("next_id", _Number, nullable=False),
    Column("feed_floor", _Number, nullable=False),
    CheckConstraint("id = 1", name="ck_store_one_row"),
)

callers = Table(
    "callers",
    metadata,
    Column("caller_id", _CallerId, primary_key=True),
    Column("metadata", Text, nullable=False),
    Column("created_at", Text),
    Column("last_seen", Text),
)

# slot: a place of the caller, of which there are as many as the limit allows; unique, so that two
# writers cannot both take the last. position: the order of enrollment, which slots do not keep.
voiceprints = Table(
    "voiceprints",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column(
        "caller_id",
        _CallerId,
        ForeignKey("callers.caller_id", name="fk_voiceprints_caller_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("slot", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("encoder", Text, nullable=False),
    Column("embedding", _Blob, nullable=False),
    Column("created_at", Text),
    Column("revision", _Number, nullable=False),
    UniqueConstraint("caller_id", "slot", name="uq_voiceprints_caller_id_slot"),
    CheckConstraint("slot >= 0", name="ck_voiceprints_slot"),
    CheckConstraint("length(embedding) > 0 AND length(embedding) % 4 = 0", name="ck_voiceprints_embedding"),
    CheckConstraint(
        "encoder <> 'resemblyzer' OR length(embedding) = 1024", name="ck_voiceprints_resemblyzer"
    ),
    Index("ix_voiceprints_encoder_id", "encoder", "id"),
    Index("ix_voiceprints_encoder_revision", "encoder", "revision"),
)

# The embeddings for simulated lines, of the voiceprints that have one. Not a column of these: with both, only
# one row fits a page of SQLite, and whoever reads the embeddings alone would read past the others.
# revision: that of the voiceprint that it was stored with. Where the two differ, an older version of the
# library, which does not know this table, has replaced the voiceprint; what it left here counts for nothing.
simulated = Table(
    "simulated_voiceprints",
    metadata,
    Column(
        "voiceprint_id",
        _Number,
        ForeignKey("voiceprints.id", name="fk_simulated_voiceprints_voiceprint_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("revision", _Number, nullable=False),
    Column("embedding", _Blob, nullable=False),
)

# The changes of voiceprints, for who follows the store: which history a revision is of.
commits = Table(
    "commits",
    metadata,
    Column("revision", _Number, primary_key=True, autoincrement=False),
    Column("token", Text, nullable=False),
)

# Callers who were deleted, see voiceprint.storage.base.Deletion.
deletions = Table(
    "deletions",
    metadata,
    Column("key", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("deleted_at", Text, nullable=False),
    Index("ix_deletions_deleted_at", "deleted_at"),
)

# Voiceprints that are no more, for who follows the store.
tombstones = Table(
    "tombstones",
    metadata,
    Column("revision", _Number, primary_key=True, autoincrement=False),
    Column("voiceprint_id", _Number, primary_key=True, autoincrement=False),
)
