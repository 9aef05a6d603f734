"""A table of the indexes; the vectors of each are in a table of its own, which the index makes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the table, and the extension."""
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.create_table(
        "vector_indexes",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("dimension", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),  # of the table of its vectors
        sa.Column("vectors", sa.BigInteger, nullable=False),  # their number: to count them reads all
        sa.Column("stamp", sa.Text, nullable=False),  # JSON: what is in the index, such as a revision
    )
