"""Mirrors an upstream server into the tree."""
