"""Voiceprints may have an embedding for simulated telephone lines, in a table of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the table, and move into it what the column of a revision 0003 holds."""
    simulated = op.create_table(
        "simulated_voiceprints",
        sa.Column("voiceprint_id", _Number, primary_key=True, autoincrement=False),
        sa.Column("revision", _Number, nullable=False),
        sa.Column("embedding", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["voiceprint_id"],
            ["voiceprints.id"],
            name="fk_simulated_voiceprints_voiceprint_id",
            ondelete="CASCADE",
        ),
    )
    connection = op.get_bind()
    if not any(found["name"] == "simulated" for found in sa.inspect(connection).get_columns("voiceprints")):
        return
    old = sa.table("voiceprints", *(sa.column(name) for name in ("id", "revision", "simulated")))
    moved = sa.select(old).where(old.c.simulated.is_not(None)).order_by(old.c.id)
    connection.execute(sa.insert(simulated).from_select(["voiceprint_id", "revision", "embedding"], moved))
    op.drop_column("voiceprints", "simulated")
