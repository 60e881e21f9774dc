"""Products of which nothing is published, in published streams that are not built.

Their aliases belong to nobody else either. Of the other products of such a stream its product file
says which aliases they have.
"""

from __future__ import annotations

import os

from fastindex.catalogue.aliases import Claim, list_aliases
from fastindex.catalogue.streams import OtherStreams
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.scan import scan
from fastindex.mirror.settings import SettingsReader


def claim_unpublished(
    mirror: Mirror, others: OtherStreams, settings: SettingsReader
) -> list[Claim]:
    """Return what the directories claim.

    Args:
        mirror: the mirror, with the streams that are built.
        others: what is published of all other streams.
        settings: reads their settings files.

    Raises:
        OSError: the system is out of descriptors or memory.
    """
    streams = [
        stream
        for stream in others.entries
        if stream not in mirror.streams and os.path.isdir(mirror.path(stream))
    ]
    if not streams:
        return []
    published = {
        product.claim.path for other in others.streams for product in other.products.values()
    }
    found = scan(mirror.with_streams(streams)).list_products(published)
    return [
        Claim(
            product.name,
            product.path,
            list_aliases(product.name, settings.merge(product.dotfiles))[0],
            is_published=False,
        )
        for product in found
    ]
