"""Where the speech of a recording is."""
