"""TLS contexts, for connections to servers by libpq's rules and for connections from clients."""

from __future__ import annotations

import ssl
from pathlib import Path

from proxy.config.url import ServerUrl, SslMode

ALPN = "postgresql"
"""The application protocol that PostgreSQL registers; direct TLS demands it (manual, "SSL Session
Encryption").
"""

_DEFAULT_ROOT = Path.home() / ".postgresql" / "root.crt"


def context_to_server(url: ServerUrl) -> ssl.SSLContext | None:
    """The context that `sslmode` and its companions ask for; None where TLS is not wanted.

    As in libpq, ``require`` with a root certificate verifies like ``verify-ca``, ``sslrootcert=system`` means
    the operating system's store, and a Unix socket never uses TLS. Raises `ssl.SSLError` or `OSError` for
    files that can't be used.
    """
    if url.sslmode is SslMode.DISABLE or url.is_unix_socket:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    root = url.sslrootcert
    verifies = url.sslmode in (SslMode.VERIFY_CA, SslMode.VERIFY_FULL)
    if root is None and (verifies or url.sslmode is SslMode.REQUIRE) and _DEFAULT_ROOT.is_file():
        root = str(_DEFAULT_ROOT)
    if verifies or (root is not None and url.sslmode is SslMode.REQUIRE):
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = url.sslmode is SslMode.VERIFY_FULL
        if root == "system" or root is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            context.load_verify_locations(root)
    if url.sslcert is not None:
        password = url.sslpassword.reveal() if url.sslpassword is not None else ""
        context.load_cert_chain(url.sslcert, url.sslkey, password)
    return context


def context_for_clients(certificate: Path, key: Path) -> ssl.SSLContext:
    """The context for clients' connections. Raises `ssl.SSLError` or `OSError` for files that can't be
    used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    context.load_cert_chain(certificate, key, "")
    return context
