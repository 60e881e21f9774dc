"""``python -m fastindex``."""

from fastindex.cli.main import run

run()
