"""Was never released: a column for embeddings for simulated lines, which 0004 keeps in a table.

A column that is added only to be dropped again would have every row of a large database written once more.
"""

from __future__ import annotations

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Leave the tables as they are; 0004 knows the databases that have the column."""
