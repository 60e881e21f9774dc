"""fastindex: a parallel batch hasher and indexer for mirrors of Incus and LXD images.

>>> import fastindex
>>> report = fastindex.build(fastindex.BuildOptions(root="/srv/images"))  # doctest: +SKIP
>>> report.versions, report.exit_code  # doctest: +SKIP
(312, <ExitCode.DONE: 0>)
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own costs as much as all else that --version needs
if TYPE_CHECKING:
    from fastindex.errors import (
        BrakeError,
        ExitCode,
        FastindexError,
        LockHeldError,
        PublishError,
        TreeError,
        UsageError,
    )
    from fastindex.events import Finding, Observer, Step
    from fastindex.mirror.tree import Naming
    from fastindex.operations.build.options import BuildOptions, BuildReport, Change
    from fastindex.operations.build.pipeline import build
    from fastindex.operations.importer.options import ImportOptions, ImportReport
    from fastindex.operations.importer.run import import_images
    from fastindex.operations.prune.options import Mismatch, VerifyOptions, VerifyReport
    from fastindex.operations.verify.run import verify_catalogue

__version__ = "0.1.0"

__all__ = [
    "BrakeError",
    "BuildOptions",
    "BuildReport",
    "Change",
    "ExitCode",
    "FastindexError",
    "Finding",
    "ImportOptions",
    "ImportReport",
    "LockHeldError",
    "Mismatch",
    "Naming",
    "Observer",
    "PublishError",
    "Step",
    "TreeError",
    "UsageError",
    "VerifyOptions",
    "VerifyReport",
    "build",
    "import_images",
    "verify_catalogue",
]


_HOMES = (
    "operations.build.pipeline",
    "operations.importer.run",
    "operations.verify.run",
    "operations.build.options",
    "operations.importer.options",
    "operations.prune.options",
    "mirror.tree",
    "events",
    "errors",
)


def __getattr__(name: str) -> object:
    # Loaded when asked for: `fastindex --version` must not wait for msgspec.
    if name in __all__:
        from importlib import import_module

        for home in _HOMES:
            module = import_module(f"fastindex.{home}")
            if name in vars(module):
                return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
