"""What the stages of a build start from."""

from __future__ import annotations

from msgspec import Struct

from fastindex.mirror.scan import Scanned
from fastindex.mirror.settings import SettingsReader
from fastindex.mirror.settle import SettlePeriod
from fastindex.mirror.state.damage import DamagedFiles


class RebuildInputs(Struct):
    """What the stages of a build start from, besides the mirror and the options."""

    scanned: Scanned
    """What is in the tree, without what is withdrawn."""
    settings: SettingsReader
    """Reads the settings files in the tree."""
    period: SettlePeriod
    """Says which versions are too young."""
    damaged: DamagedFiles
    """Files that are known to be damaged; kept up to date."""
    withdrawn: frozenset[str]
    """Versions that are withdrawn altogether: it is no accident that they go."""
