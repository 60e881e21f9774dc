"""fastindex: a parallel batch hasher and indexer for mirrors of Incus and LXD images.

>>> import fastindex
>>> report = fastindex.Mirror("/srv/images").build(jobs=16)  # doctest: +SKIP
>>> report.versions, report.exit_code  # doctest: +SKIP
(312, <ExitCode.DONE: 0>)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastindex.catalogue.images import Image
    from fastindex.catalogue.published import Mismatch
    from fastindex.errors import (
        BrakeError,
        Code,
        ExitCode,
        FastindexError,
        LockHeldError,
        PublishError,
        ResourceError,
        TreeError,
        UsageError,
    )
    from fastindex.events import Change, Finding, Observer, Step
    from fastindex.mirror.state.runs import ToldFinding
    from fastindex.operations.api import Mirror, check
    from fastindex.operations.builder.options import BuildReport
    from fastindex.operations.check.options import CheckReport
    from fastindex.operations.deltas.options import DeltasReport
    from fastindex.operations.importer.options import ImportReport
    from fastindex.operations.prune.options import PruneReport
    from fastindex.operations.pull.options import PullReport
    from fastindex.operations.push.options import PushReport
    from fastindex.operations.status.options import (
        DamagedFile,
        ProductStatus,
        RunStatus,
        StatusReport,
        StreamStatus,
        WaitingVersion,
    )
    from fastindex.operations.verify.options import VerifyReport

__version__ = "0.1.0"

__all__ = [
    "BrakeError",
    "BuildReport",
    "Change",
    "CheckReport",
    "Code",
    "DamagedFile",
    "DeltasReport",
    "ExitCode",
    "FastindexError",
    "Finding",
    "Image",
    "ImportReport",
    "LockHeldError",
    "Mirror",
    "Mismatch",
    "Observer",
    "ProductStatus",
    "PruneReport",
    "PublishError",
    "PullReport",
    "PushReport",
    "ResourceError",
    "RunStatus",
    "StatusReport",
    "Step",
    "StreamStatus",
    "ToldFinding",
    "TreeError",
    "UsageError",
    "VerifyReport",
    "WaitingVersion",
    "check",
]

_MODULES = {
    "BuildReport": "operations.builder.options",
    "Change": "events",
    "CheckReport": "operations.check.options",
    "DeltasReport": "operations.deltas.options",
    "Finding": "events",
    "Image": "catalogue.images",
    "ImportReport": "operations.importer.options",
    "Mirror": "operations.api",
    "Mismatch": "catalogue.published",
    "Observer": "events",
    "PruneReport": "operations.prune.options",
    "PullReport": "operations.pull.options",
    "PushReport": "operations.push.options",
    "Step": "events",
    "StatusReport": "operations.status.options",
    "ToldFinding": "mirror.state.runs",
    "DamagedFile": "operations.status.options",
    "ProductStatus": "operations.status.options",
    "RunStatus": "operations.status.options",
    "StreamStatus": "operations.status.options",
    "WaitingVersion": "operations.status.options",
    "VerifyReport": "operations.verify.options",
    "check": "operations.api",
}
"""Where a public name lives, if not in ``errors``."""


def __getattr__(name: str) -> object:
    # Imported when asked for: `fastindex --version` must not wait for msgspec.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
