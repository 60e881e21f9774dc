"""``python -m fastindex``."""

from fastindex.cli import run

run()
