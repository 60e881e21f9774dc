"""Make deltas from published versions to newer ones, so that clients fetch less."""
