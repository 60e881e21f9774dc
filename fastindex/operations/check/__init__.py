"""Check a mirror as clients see it, from outside."""
