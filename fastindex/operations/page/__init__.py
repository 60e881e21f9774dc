"""The page of a mirror: for people, beside the catalogue for clients."""

from fastindex.formats.page_settings import PageOptions
from fastindex.operations.page.making import PageMaker
from fastindex.operations.page.settings import read_page_settings

__all__ = ["PageMaker", "PageOptions", "read_page_settings"]
