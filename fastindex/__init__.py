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
    from fastindex.import_interface import ImportOptions, ImportReport, Step
    from fastindex.importer import import_images
    from fastindex.interface import BuildOptions, BuildReport, Change, Observer
    from fastindex.model import Finding, Naming
    from fastindex.pipeline import build
    from fastindex.upkeep_interface import Mismatch, VerifyOptions, VerifyReport
    from fastindex.verify import verify_catalogue

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


def __getattr__(name: str) -> object:
    # Loaded when asked for: `fastindex --version` must not wait for msgspec.
    if name in __all__:
        from fastindex import (
            errors,
            import_interface,
            importer,
            interface,
            model,
            pipeline,
            upkeep_interface,
            verify,
        )

        for module in (
            *(pipeline, importer, verify, interface, import_interface, upkeep_interface),
            *(model, errors),
        ):
            if name in vars(module):
                return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
