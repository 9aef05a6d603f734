"""The table of augmented embeddings is named augmented_voiceprints."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Rename the table alone, so that a large database is upgraded at once: rows are not touched.

    SQLite could rename the constraint only by copying all rows, so it keeps its name.
    """
    op.rename_table("simulated_voiceprints", "augmented_voiceprints")
