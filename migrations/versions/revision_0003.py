"""Voiceprints may have an embedding for simulated telephone lines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column, empty for the prints that are there: no row is written."""
    op.add_column("voiceprints", sa.Column("simulated", sa.LargeBinary, nullable=True))
