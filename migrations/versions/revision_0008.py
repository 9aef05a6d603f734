"""The lines of an audit log may be in a table beside the records."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "audit_log",
        sa.Column("seq", _Number, primary_key=True, autoincrement=False),
        sa.Column("line", sa.Text, nullable=False),
    )
