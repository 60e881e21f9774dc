"""Push what is published to an object store."""
