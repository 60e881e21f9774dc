"""What a run records for the next ones, in ``streams/`` next to the lock."""
