"""Identification: who of the enrolled callers is speaking."""
