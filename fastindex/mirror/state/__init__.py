"""What a run leaves for the next ones, in ``streams/`` beside the lock."""
