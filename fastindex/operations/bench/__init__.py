"""Measure how fast this machine hashes and its disk delivers, and advise on a build.

One measurement goes through these modules in this order:

1. ``selection``: find the largest files below PATH.
2. ``memory``: measure how fast each contender hashes a buffer in memory, in one process
   and in as many processes as jobs.
3. ``disk``: measure how fast these files are read past the page cache, by number of readers.
4. ``advice``: derive from the figures which ``--jobs`` to use, what limits a run and how
   long it takes.

``run.measure`` connects them, ``rounds`` starts worker processes at the same moment and
times them, ``options`` has what goes in and comes out.

Rules: nothing is written to any disk. What the advice rests on is done as a build does it:
same buffer size, same hashes, same engine. What comes from the page cache is never taken for
the speed of the disk.
"""

from fastindex.operations.bench.options import BenchOptions, BenchReport
from fastindex.operations.bench.run import measure

__all__ = ["BenchOptions", "BenchReport", "measure"]
