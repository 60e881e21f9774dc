"""Import: what builders made → version directories, each whole or absent."""
