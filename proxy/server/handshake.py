"""Connects to a server and logs in (PostgreSQL manual, "Start-up", "SSL Session Encryption", "SASL
Authentication").
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from protocol.auth.md5 import md5_hash, md5_response
from protocol.auth.scram import ScramClient, ScramKeys
from protocol.errors import AuthenticationFailed, ProtocolError, ProtocolViolation
from protocol.messages.backend import (
    AuthenticationCleartextPassword,
    AuthenticationMD5Password,
    AuthenticationOk,
    AuthenticationSASL,
    AuthenticationSASLContinue,
    AuthenticationSASLFinal,
    BackendKeyData,
    ErrorResponse,
    ParameterStatus,
    ReadyForQuery,
    decode_backend,
)
from protocol.messages.codec import Message
from protocol.messages.frontend import PasswordMessage, SASLInitialResponse, SASLResponse
from protocol.messages.startup import CancelRequest, SSLRequest, StartupMessage
from protocol.types import CancelKey
from proxy.config.auth_file import Credential, Md5Hash, PlainPassword
from proxy.config.url import ServerUrl, SslMode, SslNegotiation
from proxy.net.link import Link, LinkHandler
from proxy.net.poller import Poller
from proxy.net.tls import ALPN

MAX_LOGIN_MESSAGE = 65_536
"""Longest message that a server may send during log-in, in bytes."""

_TRANSIENT = frozenset({"53300", "57P03", "57P01", "57P02", "08006"})


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server says of itself at log-in: `parameters` by name, `statuses` the same as the
    ParameterStatus messages it sent.
    """

    pid: int
    secret: bytes
    parameters: dict[str, str]
    statuses: bytes = field(repr=False)

    @property
    def newest_minor(self) -> int:
        """The newest minor version of protocol 3 that this server speaks."""
        version = self.parameters.get("server_version", "0").partition(".")[0]
        digits = "".join(c for c in version if c.isdigit())
        return 2 if digits and int(digits) >= 18 else 0


class FailureKind(Enum):
    """UNREACHABLE: try again; BUSY: the server refuses for now; REFUSED: it will refuse again."""

    UNREACHABLE = "unreachable"
    BUSY = "busy"
    REFUSED = "refused"


class ConnectFailure(Exception):
    """A server connection could not be had. `response` is the server's own error, where it sent one;
    `authenticated` tells that it had already let the user in when it did.
    """

    def __init__(
        self,
        kind: FailureKind,
        sqlstate: str,
        message: str,
        response: ErrorResponse | None = None,
        *,
        authenticated: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.sqlstate = sqlstate
        self.message = message
        self.response = response
        self.authenticated = authenticated

    @property
    def raw(self) -> bytes | None:
        """What the server said, for a client to read: its error, behind AuthenticationOk if it sent that."""
        if self.response is None:
            return None
        return (AuthenticationOk().encode() if self.authenticated else b"") + self.response.encode()


class _Login(LinkHandler):
    """Collects what the server says during log-in."""

    __slots__ = ("_arrived", "_buffer", "_error", "_lost")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._lost = False
        self._error: Exception | None = None

    def received(self, data: bytes) -> None:
        self._buffer += data
        self._arrived.set()

    def ended(self) -> None:
        self._lost = True
        self._arrived.set()

    def lost(self, error: Exception | None) -> None:
        self._lost = True
        self._error = error
        self._arrived.set()

    async def take(self, count: int) -> bytes:
        """The next `count` bytes.  Raises `ConnectionError` when the connection ends before."""
        while len(self._buffer) < count:
            if self._lost:
                if isinstance(self._error, ssl.SSLError):
                    raise self._error
                raise ConnectionResetError("server closed the connection during log-in") from self._error
            self._arrived.clear()
            await self._arrived.wait()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def message(self) -> Message:
        """The next message, decoded."""
        head = await self.take(5)
        length = int.from_bytes(head[1:5], "big")
        if not 4 <= length <= MAX_LOGIN_MESSAGE:
            raise ProtocolViolation("server sent something that is not PostgreSQL's protocol")
        return decode_backend(head[0], await self.take(length - 4))

    @property
    def surplus(self) -> bytes:
        return bytes(self._buffer)


async def open_link(poller: Poller, url: ServerUrl, handler: _Login, context: ssl.SSLContext | None) -> Link:
    """A connection to the server, with TLS where `context` and `sslmode` say so."""
    loop = asyncio.get_running_loop()
    link = Link(poller, loop, handler)
    link.attach(await _connected_socket(loop, url), url.address)
    try:
        if context is not None:
            await _secure(link, url, handler, context)
    except BaseException:
        link.handler = None
        link.abort()
        raise
    return link


async def _connected_socket(loop: asyncio.AbstractEventLoop, url: ServerUrl) -> socket.socket:
    """A socket connected to the first of the host's addresses that answers."""
    if url.is_unix_socket:
        return await _connected(loop, socket.AF_UNIX, url.socket_path)
    found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    error: OSError = ConnectionError("host has no address")
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            sock = await _connected(loop, family, address)
        except OSError as failure:
            error = failure
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock
    raise error


async def _connected(loop: asyncio.AbstractEventLoop, family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _secure(link: Link, url: ServerUrl, handler: _Login, context: ssl.SSLContext) -> None:
    if url.sslnegotiation is SslNegotiation.DIRECT:
        await link.start_tls(context, server_side=False, hostname=url.host, timeout=60)
        if link.tls is not None and link.tls.selected_alpn_protocol() != ALPN:
            raise ssl.SSLError("server does not speak PostgreSQL's protocol over direct TLS (no ALPN)")
        return
    link.write(SSLRequest().encode())
    answer = await handler.take(1)
    if handler.surplus:
        # Bytes behind the answer were sent in the clear by whoever sits in between (CVE-2021-23222).
        raise ssl.SSLError("received unencrypted data after the answer to SSLRequest")
    if answer == b"S":
        await link.start_tls(context, server_side=False, hostname=url.host, timeout=60)
    elif url.sslmode.demands_tls:
        raise ssl.SSLError("server does not support SSL, but sslmode demands it")


async def connect(
    poller: Poller,
    url: ServerUrl,
    startup: dict[str, str],
    credential: Credential | ScramKeys | None,
    context: ssl.SSLContext | None,
    timeout: float,
) -> tuple[Link, Greeting]:
    """Connects and logs in with the start-up parameters (``user`` and ``database`` among them).

    `timeout` is in seconds, for all of it.  Raises `ConnectFailure`.
    """
    attempts = [context]
    if url.sslmode is SslMode.ALLOW:
        attempts = [None, context]
    elif url.sslmode is SslMode.PREFER and context is not None:
        attempts = [context, None]
    for number, attempt in enumerate(attempts, 1):
        try:
            return await _attempt(poller, url, startup, credential, attempt, timeout)
        except ssl.SSLError as error:
            if number == len(attempts):
                raise _unreachable(url, _ssl_reason(error)) from None
        except ConnectFailure as failure:
            if number == len(attempts) or failure.sqlstate != "28000":
                raise
    raise AssertionError("unreachable")


async def _attempt(
    poller: Poller,
    url: ServerUrl,
    startup: dict[str, str],
    credential: Credential | ScramKeys | None,
    context: ssl.SSLContext | None,
    timeout: float,
) -> tuple[Link, Greeting]:
    handler = _Login()
    link: Link | None = None
    try:
        async with asyncio.timeout(timeout):
            link = await open_link(poller, url, handler, context)
            greeting = await _log_in(link, handler, startup, credential, url)
            link.handler = None
            return link, greeting
    except TimeoutError:
        reason = f"no answer within {timeout:g} s"
    except ssl.SSLError:
        _drop(link)
        raise
    except AuthenticationFailed as error:
        _drop(link)
        raise ConnectFailure(
            FailureKind.REFUSED, "28P01", f"log-in to {url.address} failed: {error}"
        ) from None
    except ProtocolError as error:
        reason = str(error)
    except OSError as error:
        reason = _os_reason(error)
    except BaseException:
        _drop(link)
        raise
    _drop(link)
    raise _unreachable(url, reason) from None


def _drop(link: Link | None) -> None:
    if link is not None:
        link.handler = None
        link.abort()


def _unreachable(url: ServerUrl, reason: str) -> ConnectFailure:
    return ConnectFailure(
        FailureKind.UNREACHABLE, "08001", f"could not connect to server at {url.address}: {reason}"
    )


def _os_reason(error: OSError) -> str:
    if error.errno and not isinstance(error, socket.gaierror):
        # The event loop puts words of its own into strerror.
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


def _ssl_reason(error: ssl.SSLError) -> str:
    # Those of our own making have no reason, those of verification more than one.
    verify = getattr(error, "verify_message", "")
    return f"TLS: {verify or getattr(error, 'reason', None) or error.args[-1]}"


async def _log_in(
    link: Link,
    handler: _Login,
    startup: dict[str, str],
    credential: Credential | ScramKeys | None,
    url: ServerUrl,
) -> Greeting:
    link.write(StartupMessage(3, 0, startup).encode())
    await _authenticate(link, handler, startup["user"], credential, url)
    parameters: dict[str, str] = {}
    statuses: list[bytes] = []
    key = CancelKey(0, b"\0\0\0\0")
    while True:
        message = await handler.message()
        if isinstance(message, ParameterStatus):
            parameters[message.name] = message.value
            statuses.append(message.encode())
        elif isinstance(message, BackendKeyData):
            key = CancelKey(message.pid, message.secret)
        elif isinstance(message, ErrorResponse):
            raise _refused(message, authenticated=True)
        elif isinstance(message, ReadyForQuery):
            return Greeting(key.pid, key.secret, parameters, b"".join(statuses))


def _refused(response: ErrorResponse, *, authenticated: bool = False) -> ConnectFailure:
    kind = FailureKind.BUSY if response.sqlstate in _TRANSIENT else FailureKind.REFUSED
    return ConnectFailure(kind, response.sqlstate, response.message, response, authenticated=authenticated)


async def _authenticate(
    link: Link, handler: _Login, user: str, credential: Credential | ScramKeys | None, url: ServerUrl
) -> None:
    scram: ScramClient | None = None
    while True:
        message = await handler.message()
        if isinstance(message, AuthenticationOk):
            if scram is not None and not scram.finished:
                raise AuthenticationFailed("server did not prove that it knows the password")
            return
        if isinstance(message, ErrorResponse):
            raise _refused(message)
        if isinstance(message, AuthenticationSASL):
            if "SCRAM-SHA-256" not in message.mechanisms:
                raise AuthenticationFailed(f"server offers {', '.join(message.mechanisms)} only")
            scram = _scram_client(credential)
            link.write(SASLInitialResponse("SCRAM-SHA-256", scram.first()).encode())
        elif isinstance(message, AuthenticationSASLContinue | AuthenticationSASLFinal) and scram is not None:
            answer = scram.step(message.data)
            if answer is not None:
                link.write(SASLResponse(answer).encode())
        elif isinstance(message, AuthenticationMD5Password):
            link.write(PasswordMessage(_md5(user, credential, message.salt)).encode())
        elif isinstance(message, AuthenticationCleartextPassword):
            if link.tls is None and not url.is_unix_socket:
                raise AuthenticationFailed(
                    "server asks for the password in clear text on a connection without TLS"
                )
            if not isinstance(credential, PlainPassword):
                raise AuthenticationFailed("server asks for the password, which is not known")
            link.write(PasswordMessage(credential.reveal().encode("utf-8", "surrogateescape")).encode())
        else:
            raise AuthenticationFailed(
                f"server asks for an authentication that is not supported ({type(message).__name__})"
            )


def _scram_client(credential: Credential | ScramKeys | None) -> ScramClient:
    if isinstance(credential, PlainPassword):
        return ScramClient(credential.reveal())
    if isinstance(credential, ScramKeys):
        return ScramClient(keys=credential)
    raise AuthenticationFailed("server asks for a password, and none is known")


def _md5(user: str, credential: Credential | ScramKeys | None, salt: bytes) -> bytes:
    if isinstance(credential, PlainPassword):
        stored = md5_hash(user, credential.reveal())
    elif isinstance(credential, Md5Hash):
        stored = credential.reveal()
    else:
        raise AuthenticationFailed("server asks for a password by md5, and none is known")
    return md5_response(stored, salt).encode()


async def send_cancel(
    poller: Poller, url: ServerUrl, context: ssl.SSLContext | None, key: CancelKey, timeout: float
) -> None:
    """Asks the server to cancel what the connection with this key runs, and waits until it has taken note (it
    closes the connection).

    Raises `OSError`, `ssl.SSLError` or `TimeoutError`.
    """
    handler = _Login()
    async with asyncio.timeout(timeout):
        link = await open_link(poller, url, handler, context)
        try:
            link.write(CancelRequest(key).encode())
            with contextlib.suppress(ConnectionError):
                await handler.take(1)
        finally:
            link.handler = None
            link.abort()
