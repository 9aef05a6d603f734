"""Rows that wait for a vacuum, and the search effort that was measured, of each index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns. Earlier indexes are measured when they are next tuned."""
    for column in (
        sa.Column("dead", sa.BigInteger, nullable=False, server_default="0"),  # removed rows, not vacuumed
        sa.Column("dead_since", sa.DateTime(timezone=True)),  # when the first of them was removed
        sa.Column("ef_search", sa.Integer),
        sa.Column("recall", sa.Double),  # that was measured with it
        sa.Column("tuned_at", sa.BigInteger, nullable=False, server_default="0"),  # vectors at that time
    ):
        op.add_column("vector_indexes", column)
