"""Import: what builders made → version directories, each complete or absent."""
