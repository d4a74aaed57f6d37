"""The files that settings name, tried before the proxy starts: a bad one is an error of its setting."""

import ssl
from pathlib import Path

from proxy.config.auth_file import read_auth_file
from proxy.config.schema import Settings
from proxy.errors import ConfigError


def check_files(settings: Settings) -> None:
    """Open and read every file the settings name. Raises ConfigError."""
    if settings.auth.file is not None:
        read_auth_file(settings.auth.file)
    _check_client_tls(settings)
    _check_server_tls(settings)


def _check_client_tls(settings: Settings) -> None:
    certificate, key = settings.client.tls_cert, settings.client.tls_key
    if certificate is None or key is None:
        return
    _readable("client.tls_cert", certificate)
    _readable("client.tls_key", key)
    _key_pair("client.tls_cert", certificate, key)


def _check_server_tls(settings: Settings) -> None:
    url = settings.primary
    if url.sslrootcert is not None and url.sslrootcert != "system":
        _readable("primary", url.sslrootcert)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(url.sslrootcert)
        except ssl.SSLError:
            raise ConfigError(
                "primary", None, f"sslrootcert {url.sslrootcert} holds no PEM certificate"
            ) from None
    if url.sslcert is not None:
        _readable("primary", url.sslcert)
        if url.sslkey is not None:
            _readable("primary", url.sslkey)
        _key_pair("primary", url.sslcert, url.sslkey, url.sslpassword.reveal() if url.sslpassword else "")


def _readable(setting: str, path: Path | str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise ConfigError(setting, str(path), f"a file that can be read ({error.strerror})") from None


def _key_pair(setting: str, certificate: Path | str, key: Path | str | None, password: str = "") -> None:
    try:
        # With a password given, even an empty one, OpenSSL never asks on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        where = str(certificate) if key is None else f"{certificate} and {key}"
        raise ConfigError(
            setting,
            where,
            f"a PEM certificate and its private key, without a password or with sslpassword ({reason})",
        ) from None
