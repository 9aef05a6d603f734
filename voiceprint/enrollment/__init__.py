"""Enrollment: recordings become voiceprints in the store."""
