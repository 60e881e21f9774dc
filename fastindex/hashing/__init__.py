"""Bytes → digests: what is to be read, in which batches, by which workers, with which engine.

Knows nothing of catalogues or trees. The only package that computes SHA-256 or BLAKE3.
"""
