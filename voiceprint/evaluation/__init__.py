"""Measuring how well callers are recognised, on recordings of known speakers."""
