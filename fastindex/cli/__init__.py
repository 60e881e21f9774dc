"""Words on a command line → options → exit code; one module a command.

The only package that prints, and in it only ``output`` does.
"""

from fastindex.cli.main import run

__all__ = ["run"]
