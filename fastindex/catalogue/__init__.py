"""What clients see: assembled, checked against the contract, written, read back, compared.

Knows nothing of the disk's layout but ``streams/v1``, and hashes nothing.
"""
