"""The operating system, safely: writes, directories, locks, disks, processes, signals."""
