"""The tree on disk: what is in it, what earlier runs recorded, how versions come and go.

Knows nothing of how bytes are hashed or what clients read.
"""
