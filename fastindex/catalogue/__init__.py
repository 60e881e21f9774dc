"""What clients see: assembled, checked against what they accept, written, read back, compared.

Knows nothing of the disk's layout but ``streams/v1``, and hashes nothing.
"""
