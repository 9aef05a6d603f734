"""The revisions of the schema of vector indexes, oldest first."""
