"""The build: scan → plan → digest → assemble → publish."""
