"""The table of augmented embeddings is named augmented_voiceprints."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Rename the table. Its rows are not touched, so that a large database is upgraded at once."""
    op.rename_table("simulated_voiceprints", "augmented_voiceprints")
    if (
        op.get_bind().dialect.name == "postgresql"
    ):  # SQLite cannot rename a constraint, and uses no name of one
        for name in ("simulated_voiceprints_pkey", "fk_simulated_voiceprints_voiceprint_id"):
            new_name = name.replace("simulated", "augmented")
            op.execute(f"ALTER TABLE augmented_voiceprints RENAME CONSTRAINT {name} TO {new_name}")
