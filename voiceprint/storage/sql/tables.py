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

__all__ = [
    "audit_log",
    "augmented",
    "caller_groups",
    "callers",
    "commits",
    "deletions",
    "metadata",
    "store",
    "tombstones",
    "voiceprints",
]


class _Blob(LargeBinary):
    """Bytes as the driver returns them. LargeBinary fails on another type, as in a damaged row."""

    cache_ok = True

    def result_processor(self, _dialect: Any, _coltype: Any) -> None:
        return None


metadata = MetaData()

# In SQLite only a column of the type INTEGER can be the row id.
_Number = BigInteger().with_variant(Integer, "sqlite")
# Pages of callers are in code-point order, as SQLite compares text.
_CallerId = Text().with_variant(Text(collation="C"), "postgresql")

# One row: identity and counters of the store. Not the database's own numbering of voiceprints: an id must
# not be given again after its row was removed.
store = Table(
    "store",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("identity", Text, nullable=False),
    Column("revision", _Number, nullable=False),
    Column("next_id", _Number, nullable=False),
    Column("feed_floor", _Number, nullable=False),
    # The mark of an encrypted store, see voiceprint.storage.sealing; NULL for a plain one.
    Column("encryption", Text),
    CheckConstraint("id = 1", name="ck_store_one_row"),
)

callers = Table(
    "callers",
    metadata,
    Column("caller_id", _CallerId, primary_key=True),
    Column("metadata", Text, nullable=False),
    Column("created_at", Text),
    Column("last_seen", Text),
    # JSON object of consent, opt_out and groups, see codec.details_fields; NULL without any. An opt-out comes
    # first, and is then alone.
    Column("details", Text),
    # Of an encrypted store: the wrapped data key of the caller, and the sealed metadata and details. The
    # metadata is then "{}", and `details` is NULL, or names an opt-out without its content.
    Column("data_key", _Blob),
    Column("sealed", _Blob),
)

# The groups of callers, which derive from `details`: to find the callers of a group.
caller_groups = Table(
    "caller_groups",
    metadata,
    Column("name", Text, primary_key=True),
    Column(
        "caller_id",
        _CallerId,
        ForeignKey("callers.caller_id", name="fk_caller_groups_caller_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Index("ix_caller_groups_caller_id", "caller_id"),
)

# slot: a number unique per caller over all embedding spaces, so that two writers cannot both add a voiceprint
# to the same state of a caller. position: the order of enrollment, which slots do not show.
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
    # JSON object of the provenance; NULL without one.
    Column("details", Text),
    # Of an encrypted store: nonce and tag of the embedding, whose ciphertext has its length; behind them the
    # sealed provenance, if there is one.
    Column("seal", _Blob),
    UniqueConstraint("caller_id", "slot", name="uq_voiceprints_caller_id_slot"),
    CheckConstraint("slot >= 0", name="ck_voiceprints_slot"),
    CheckConstraint("length(embedding) > 0 AND length(embedding) % 4 = 0", name="ck_voiceprints_embedding"),
    CheckConstraint(
        "encoder <> 'resemblyzer' OR length(embedding) = 1024", name="ck_voiceprints_resemblyzer"
    ),
    Index("ix_voiceprints_encoder_id", "encoder", "id"),
    Index("ix_voiceprints_encoder_revision", "encoder", "revision"),
)

# The augmented embeddings, of voiceprints that have one. Not a column of these: only one row with both fits a
# page of SQLite, which doubles the pages that a scan of the embeddings reads.
# revision: of the voiceprint that the embedding was stored with. If the two differ, an older version of the
# library without this table has replaced the voiceprint, and the row here is ignored.
augmented = Table(
    "augmented_voiceprints",
    metadata,
    Column(
        "voiceprint_id",
        _Number,
        # Its name is that of revision 0004: SQLite cannot rename a constraint.
        ForeignKey("voiceprints.id", name="fk_simulated_voiceprints_voiceprint_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("revision", _Number, nullable=False),
    Column("embedding", _Blob, nullable=False),
    Column("seal", _Blob),
)

# The commits that changed voiceprints, for the change feed.
commits = Table(
    "commits",
    metadata,
    Column("revision", _Number, primary_key=True, autoincrement=False),
    Column("token", Text, nullable=False),
)

# Noted deletions, see voiceprint.storage.base.Deletion.
deletions = Table(
    "deletions",
    metadata,
    Column("key", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("deleted_at", Text, nullable=False),
    Index("ix_deletions_deleted_at", "deleted_at"),
)

# Removed voiceprints, for the change feed.
tombstones = Table(
    "tombstones",
    metadata,
    Column("revision", _Number, primary_key=True, autoincrement=False),
    Column("voiceprint_id", _Number, primary_key=True, autoincrement=False),
)

# The chained lines of an audit log, see voiceprint.privacy.audit. Rows are appended alone.
audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=False),
    Column("line", Text, nullable=False),
)
