"""Bytes → digests: which files to read, in which batches, in which workers, with which engine.

Knows nothing of catalogues or trees. The only package that computes SHA-256 or BLAKE3.
"""
