"""Run by Alembic: applies the revisions on the connection of `voiceprint.migrations`."""

from __future__ import annotations

from alembic import context

from voiceprint.storage.sql.tables import metadata

# The transaction is the caller's, who may roll the whole upgrade back.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
