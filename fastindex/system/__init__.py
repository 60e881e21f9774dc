"""The operating system: files, directories, locks, disks, processes and signals, used safely.

The rules of this package:

- It writes, renames and deletes for everything above it, except for ``mirror/staging`` and
  ``mirror/removal``, and these do it through ``directories``.
- A file is published whole or not at all (``atomic``).
- A path in a tree where others may write is opened name by name from a trusted directory, and no
  symlink on the way is followed (``directories``).
- Nothing blocks for ever: not on a FIFO, a device, a dead worker or another run's lock.
- An ``OSError`` of a system call names the file it is about, even if the call had a descriptor.
"""
