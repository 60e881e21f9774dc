"""What is published of the versions in the tree, read only if somebody asks."""

from __future__ import annotations

import os

from fastindex.catalogue.publication import read_published_items
from fastindex.formats.simplestreams import Item, product_file_path
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundProduct, FoundVersion


class PublishedVersions:
    """Finds the published items of versions; reads the product file of a stream once.

    Args:
        mirror: the mirror.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._output = mirror.output
        self._streams: dict[str, dict[tuple[str, str], dict[str, Item]]] = {}

    def find_items(self, product: FoundProduct, version: FoundVersion) -> dict[str, Item] | None:
        """Return the published items of a version, by file name; None if it is not published."""
        stream = product.stream
        if stream not in self._streams:
            path = os.path.join(self._output, product_file_path(stream))
            self._streams[stream] = read_published_items(path)
        return self._streams[stream].get((product.name.key, version.name))
