"""How fast this machine hashes and its disk delivers, and what follows for a build."""
