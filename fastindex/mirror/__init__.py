"""The tree on disk: what lies in it, what earlier runs left, how versions come and go.

Knows nothing of how bytes are hashed or what clients read.
"""
