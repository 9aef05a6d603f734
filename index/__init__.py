"""A vector index that knows nothing of voices."""
