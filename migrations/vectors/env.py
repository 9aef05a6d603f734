"""Run by Alembic: applies the revisions on the connection of `voiceprint.migrations.vectors`."""

from __future__ import annotations

from alembic import context

from voiceprint.migrations.vectors import VERSION_TABLE

# The transaction is the caller's, who may roll the whole upgrade back.
context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
