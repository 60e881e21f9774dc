"""Check all that is published against the disk and against the contract."""
