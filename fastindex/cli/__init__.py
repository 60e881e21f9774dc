"""Words on a command line → options → exit code; one module for each command.

No other package prints, and in this one only ``output`` does.
"""

from fastindex.cli.main import run

__all__ = ["run"]
