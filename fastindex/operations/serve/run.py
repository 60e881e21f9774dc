"""``serve`` as a whole: what is published, a certificate, and a server until a signal comes."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from contextlib import suppress

from fastindex.errors import ResourceError, UsageError, translate_system_errors
from fastindex.events import Observer
from fastindex.mirror.mirror import Mirror
from fastindex.mirror.state import outputs
from fastindex.operations.serve import certificate
from fastindex.operations.serve.addresses import (
    check_address,
    is_loopback,
    list_names,
    list_reachable,
    make_url,
)
from fastindex.operations.serve.options import ServeOptions, Serving
from fastindex.operations.serve.server import Clerk, Limits, Upkeep, listen, run_server
from fastindex.system.stamps import Stamp, stamp_of

_EXTRA = "pip install tornado cryptography"


@translate_system_errors()
def serve(
    mirror: Mirror,
    options: ServeOptions,
    observer: Observer,
    is_ready: Callable[[Serving], None],
) -> int:
    """Serve what is published until a signal comes; then let downloads that run go on for a while.

    Args:
        mirror: where everything lies.
        options: where and how.
        observer: told of each request, and of what is missing.
        is_ready: told when the server answers.

    Returns:
        How many downloads were cut off at the end.

    Raises:
        UsageError: an option makes no sense.
        TreeError: ROOT is missing, or nothing is published, or clients reject it.
        ResourceError: a library is not installed, the address is taken, or the certificate cannot
            be used.
    """
    _require_libraries(options)
    address = check_address(options.address)
    if options.is_plain and not is_loopback(address):
        raise UsageError(
            f"--http --listen {address}: clients take https only, and others could read along; "
            "leave out --http, or listen at 127.0.0.1"
        )
    mirror.require_root()
    outputs.require_readable_catalogue(mirror)
    clerk = Clerk(mirror, observer)
    names = list_names(address, options.names)
    sockets = listen(address, options.port)
    try:
        shown = None if options.is_plain else _find_certificate(options, names)
        context, upkeep = _make_context(shown, options, names)
        scheme = "http" if options.is_plain else "https"
        serving = Serving(
            tuple(
                make_url(scheme, name, sockets[0].getsockname()[1])
                for name in list_reachable(address, names)
            ),
            shown.authority if shown is not None else "",
            shown is not None and shown.has_replaced_authority,
            is_loopback(address),
        )
        limits = Limits(options.patience_seconds, options.stall_seconds, options.max_connections)
        return asyncio.run(
            run_server(clerk, limits, sockets, context, upkeep, observer, lambda: is_ready(serving))
        )
    finally:
        for one in sockets:
            with suppress(OSError):
                one.close()


def _require_libraries(options: ServeOptions) -> None:
    try:
        import tornado.httpserver

        if not (options.is_plain or options.certificate):
            import cryptography.x509

            del cryptography
        del tornado
    except ImportError as error:
        raise ResourceError(f"{error.name} is not installed; {_EXTRA}") from error


def _find_certificate(options: ServeOptions, names: tuple[str, ...]) -> certificate.Certificate:
    if bool(options.certificate) != bool(options.key):
        raise UsageError("--cert and --key go together; give both, or neither")
    if options.certificate:
        return certificate.Certificate(options.certificate, options.key)
    return certificate.prepare(certificate.find_directory(), names)


def _make_context(
    shown: certificate.Certificate | None, options: ServeOptions, names: tuple[str, ...]
) -> tuple[ssl.SSLContext | None, Upkeep]:
    """Return what a server shows, and what keeps that up to date."""
    if shown is None:
        return None, lambda: None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, shown)
    loaded = _look(shown)

    def renew() -> None:
        nonlocal loaded
        current = _find_certificate(options, names)
        if _look(current) != loaded:
            _load(context, current)  # for connections from now on
            loaded = _look(current)

    return context, renew


def _look(shown: certificate.Certificate) -> list[Stamp]:
    return [stamp_of(os.stat(path)) for path in (shown.path, shown.key)]


def _load(context: ssl.SSLContext, shown: certificate.Certificate) -> None:
    try:
        context.load_cert_chain(shown.path, shown.key)
    except (OSError, ssl.SSLError) as error:
        raise ResourceError(
            f"{shown.path} and {shown.key}: cannot be used as a certificate and its key "
            f"({error}); they must be PEM files, readable by this user, and belong together"
        ) from error
