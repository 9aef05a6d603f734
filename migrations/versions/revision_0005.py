"""Commits of voiceprints have tokens, so that histories differ; deletions of callers are noted."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables; the feed begins anew, as what was followed had no tokens."""
    commits = op.create_table(
        "commits",
        sa.Column("revision", _Number, primary_key=True, autoincrement=False),
        sa.Column("token", sa.Text, nullable=False),
    )
    op.create_table(
        "deletions",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("deleted_at", sa.Text, nullable=False),
    )
    op.create_index("ix_deletions_deleted_at", "deletions", ["deleted_at"])
    connection = op.get_bind()
    store = sa.table("store", sa.column("revision"), sa.column("feed_floor"))
    now_at = connection.scalar(sa.select(store.c.revision))
    if now_at:
        connection.execute(sa.update(store).values(feed_floor=now_at))
        connection.execute(sa.insert(commits).values(revision=now_at, token=secrets.token_hex(8)))
        connection.execute(sa.delete(sa.table("tombstones")))
