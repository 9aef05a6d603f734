"""Speaker identification for call centres and voice agents."""
