"""One voiceprint a caller, as OpusAgent kept them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the table that OpusAgent's databases have in the field."""
    op.create_table(
        "voiceprints",
        sa.Column("caller_id", sa.Text, primary_key=True),
        sa.Column("embedding", sa.LargeBinary),
        sa.Column("metadata", sa.Text),
        sa.Column("created_at", sa.Text),
        sa.Column("last_seen", sa.Text),
    )
