"""Callers have consents, opt-outs and groups, voiceprints a provenance, and both may be encrypted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_CallerId = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add columns without a value, so that no row is touched, and the table of groups."""
    for table, column, kind in (
        ("store", "encryption", sa.Text),
        ("callers", "details", sa.Text),
        ("callers", "data_key", sa.LargeBinary),
        ("callers", "sealed", sa.LargeBinary),
        ("voiceprints", "details", sa.Text),
        ("voiceprints", "seal", sa.LargeBinary),
        ("augmented_voiceprints", "seal", sa.LargeBinary),
    ):
        op.add_column(table, sa.Column(column, kind))
    op.create_table(
        "caller_groups",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("caller_id", _CallerId, primary_key=True),
        sa.ForeignKeyConstraint(
            ["caller_id"], ["callers.caller_id"], name="fk_caller_groups_caller_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_caller_groups_caller_id", "caller_groups", ["caller_id"])
