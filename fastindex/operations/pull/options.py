"""The options of a pull, and its report. Apart from its run, so that the start is quick."""

from __future__ import annotations

import math

from msgspec import Struct

from fastindex.errors import ExitCode, UsageError
from fastindex.events import Finding, Step
from fastindex.operations.builder.options import BuildOptions, BuildReport
from fastindex.remote.options import RemoteOptions

DEFAULT_KEEP = 1


class PullOptions(Struct, frozen=True, kw_only=True):
    """What to pull, and how."""

    url: str
    """The upstream: what stands before ``/streams/v1/index.json``."""
    filters: tuple[str, ...] = ()
    """What to choose; an image is chosen if one of them, or none, is given and holds."""
    keep: int = DEFAULT_KEEP
    """How many of the newest versions of each product to have here."""
    stream: str = ""
    """The stream directory that all goes into; empty: that of the upstream's own path, else
    ``images``."""
    mirrors: tuple[str, ...] = ()
    """URLs where the files are, too, if the upstream does not deliver one."""
    keyring: str = ""
    """A keyring of GnuPG: the catalogue must be signed by a key in it; empty: it need not be."""
    moved_from: str = ""
    """The address under which the same upstream was pulled before; empty: this one."""
    lag_seconds: float = math.inf
    """How old the newest chosen version may be."""
    remote: RemoteOptions = RemoteOptions(user_agent="fastindex")
    """How servers are asked."""
    build: BuildOptions = BuildOptions()
    """The options of the build that a pull ends with. Its ``wait_seconds``, ``force`` and
    ``dry_run`` hold for the whole run."""

    def check(self) -> None:
        """Check what can be checked without the mirror; raises UsageError."""
        self.build.check()
        self.remote.check()
        if not (isinstance(self.keep, int) and self.keep >= 1):
            raise UsageError("--keep must be an integer of at least 1")
        for url in (self.url, *self.mirrors):
            top, found, _ = url.partition("/streams/v1")
            if found:
                raise UsageError(f"the URL is what stands before /streams/v1, so {top}")
        if not self.lag_seconds >= 0:
            raise UsageError("--lag must be at least 0 seconds")


class PullReport(Struct, frozen=True, kw_only=True):
    """What a pull did."""

    pulled: tuple[str, ...] = ()
    """Versions that are new in the tree, relative to ROOT."""
    existing: int = 0
    """How many chosen versions were here already."""
    withdrawn: tuple[str, ...] = ()
    """Versions that the upstream withdrew, or that are older than those to keep."""
    failed: int = 0
    """How many chosen versions are not here; each has a finding."""
    findings: tuple[Finding, ...] = ()
    """All that a person should know."""
    steps: tuple[Step, ...] = ()
    """What a real run would do; only a dry run reports it."""
    bytes_to_fetch: int = 0
    """How many bytes a real run would fetch; only a dry run reports it."""
    bytes_free: int = 0
    """How many bytes the disk has left; only a dry run reports it."""
    bytes_fetched: int = 0
    """How many bytes of files came over the network."""
    bytes_linked: int = 0
    """How many bytes were here already, in other versions, and were hard-linked."""
    seconds: float = 0
    """Wall time of the whole run."""
    fetching_seconds: float = 0
    """Wall time spent on fetching."""
    built: BuildReport | None = None
    """What was published; None: a dry run."""
    is_behind: bool = False
    """Whether the newest version is older than it may be."""

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        built = ExitCode.DONE if self.built is None else self.built.exit_code
        has_gap = self.failed or self.is_behind
        return max(built, ExitCode.LEFT_OUT) if has_gap else built
