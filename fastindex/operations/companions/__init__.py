"""Makers of what accompanies the catalogue: compressed and signed copies, and lists for mirrors."""
