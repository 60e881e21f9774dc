"""What is published of the streams that are built, opened only if somebody asks."""

from __future__ import annotations

import os
from contextlib import ExitStack

from fastindex.catalogue.drafts import open_published, read_published
from fastindex.catalogue.product_files import PublishedFile
from fastindex.formats.simplestreams import Item, product_file_path
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.tree import FoundProduct, FoundVersion


class PublishedStreams:
    """Opens the product file of a stream once.

    Args:
        mirror: the mirror.
        stack: closes the files in the end.
    """

    def __init__(self, mirror: Mirror, stack: ExitStack) -> None:
        self._output = mirror.output
        self._stack = stack
        self._files: dict[str, PublishedFile | None] = {}

    def find(self, stream: str) -> PublishedFile | None:
        """Return the product file of a stream; None if there is none that can be read."""
        if stream not in self._files:
            file = open_published(os.path.join(self._output, product_file_path(stream)))
            if file is not None:
                self._stack.enter_context(file)
            self._files[stream] = file
        return self._files[stream]

    def find_items(self, product: FoundProduct, version: FoundVersion) -> dict[str, Item] | None:
        """Return the published items of a version, by file name; None if it is not published."""
        file = self.find(product.stream)
        published = None if file is None else read_published(file, product.name.key)
        found = None if published is None else published.versions.get(version.name)
        return None if found is None else found.items
