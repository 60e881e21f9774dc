"""What ``serve`` is told, and what it tells."""

from __future__ import annotations

from msgspec import Struct

DEFAULT_PORT = 8444
"""Not 8443, where the daemons of Incus and LXD listen."""


class ServeOptions(Struct, frozen=True, kw_only=True):
    """Where and how to serve."""

    address: str = "127.0.0.1"
    """The IP address to listen at; ``0.0.0.0`` and ``::`` are all of the machine's."""
    port: int = DEFAULT_PORT
    """The port; 0: any that is free."""
    is_plain: bool = False
    """Serve plain HTTP, which only loopback addresses may."""
    certificate: str = ""
    """The PEM file of the certificate and its chain; empty: one is made."""
    key: str = ""
    """The PEM file of its key."""
    names: tuple[str, ...] = ()
    """More names and addresses of this machine, for the certificate that is made."""
    patience_seconds: float = 10.0
    """How long downloads that run may go on after a signal."""
    stall_seconds: float = 60.0
    """How long a client may take for a request, or for 64 KiB of an answer."""
    max_connections: int = 4096
    """How many there may be at once; fewer, if this process may not open enough files."""


class Serving(Struct, frozen=True):
    """A server that has begun to answer."""

    urls: tuple[str, ...]
    """Where it answers, the best name first."""
    authority: str
    """The file with the certificate that clients must trust; empty: it is the operator's matter,
    or there is none."""
    has_replaced_authority: bool
    """Whether that replaces another one, which clients may trust."""
    is_local: bool
    """Whether only this machine reaches it."""
