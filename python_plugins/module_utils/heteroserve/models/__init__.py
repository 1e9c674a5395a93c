"""Models' weights."""
