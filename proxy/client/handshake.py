"""A client that has not logged in yet: start-up, TLS, authentication (PostgreSQL manual, "Start-up",
"Canceling Requests in Progress").

A state machine fed by the link: `_step` is the method that makes something of the bytes that have come, and
returns False when it needs more.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from protocol.auth.md5 import verify as verify_md5
from protocol.auth.scram import ScramKeys, ScramServer
from protocol.errors import AuthenticationFailed, ProtocolViolation, UnsupportedProtocolVersion
from protocol.messages.backend import (
    AuthenticationMD5Password,
    AuthenticationOk,
    AuthenticationSASL,
    AuthenticationSASLContinue,
    AuthenticationSASLFinal,
    BackendKeyData,
)
from protocol.messages.frontend import PasswordMessage, SASLInitialResponse, SASLResponse
from protocol.messages.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    decode_startup,
    negotiation,
    startup_length,
)
from proxy import clock
from proxy.client import replies as say
from proxy.client.session import Session
from proxy.config.auth_file import Credential
from proxy.config.schema import ClientTls
from proxy.net.link import Link
from proxy.net.tls import ALPN
from proxy.server.connection import ServerConnection, Waiter
from proxy.server.pool import Pool, Refusal

MAX_PASSWORD_MESSAGE = 65_535  # PG_MAX_AUTH_TOKEN_LENGTH
_TLS_HANDSHAKE = b"\x16"
_AUTHENTICATION_OK = AuthenticationOk().encode()


class Refused(Exception):
    """The log-in ends with a FATAL error."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message


class ClientHandshake(Waiter):
    """One log-in; `context` is the front door (`app.Front`). As a `Waiter` of a pool it waits for what a
    server says at log-in.
    """

    __slots__ = (
        "_asked_gss",
        "_asked_tls",
        "_buffer",
        "_cancelling",
        "_deadline",
        "_md5_salt",
        "_ok_sent",
        "_scram",
        "_startup",
        "_step",
        "_upgrading",
        "context",
        "link",
        "pool",
    )

    def __init__(self, link: Link, context: Any) -> None:
        self.link = link
        self.context = context
        self.pool: Pool | None = None
        self.waiting_since = 0.0
        self._buffer = bytearray()
        self._step = self._start
        self._asked_tls = False
        self._asked_gss = False
        self._ok_sent = False
        self._scram: ScramServer | None = None
        self._md5_salt = b""
        self._startup = StartupMessage(3, 0, {})
        self._upgrading: asyncio.Task[None] | None = None
        self._cancelling: asyncio.Task[None] | None = None
        self._deadline = context.loop.call_later(context.settings.client.login_timeout, self._too_late)

    def received(self, data: bytes) -> None:
        self._buffer += data
        self._go_on()

    def _go_on(self) -> None:
        try:
            while self.link.handler is self and not self.link.closed and self._step():
                pass
        except Refused as refused:
            self._failed(refused.sqlstate, refused.message)
            self._refuse(refused.sqlstate, refused.message)
        except UnsupportedProtocolVersion as error:
            if 0 < self._startup.major < 3:
                self.link.write(b"EFATAL:  " + error.message.encode() + b"\n\0")
                self._end()
            else:
                self._refuse(error.sqlstate, error.message)
        except ProtocolViolation as violation:
            self.context.protocol_violated(self.link.peer, violation.message)
            self._refuse(violation.sqlstate, violation.message, violation.detail)

    # -- start-up ----------------------------------------------------------------------------------

    def _start(self) -> bool:
        buffer = self._buffer
        length = startup_length(bytes(buffer[:4]))
        if length is None or len(buffer) < length:
            return False
        packet = decode_startup(bytes(buffer[:length]))
        del buffer[:length]
        if isinstance(packet, SSLRequest) and not self._asked_tls:
            return self._tls_requested()
        if isinstance(packet, GSSENCRequest) and not self._asked_gss:
            self._asked_gss = True
            self._not_encrypted("GSSAPI encryption request")
            return True
        if isinstance(packet, CancelRequest):
            self._cancel(packet)
            return False
        if not isinstance(packet, StartupMessage):
            code = 5679 if isinstance(packet, SSLRequest) else 5680
            packet = StartupMessage(1234, code, {})
        self._startup_message(packet)
        return True

    def _tls_requested(self) -> bool:
        self._asked_tls = True
        if self.context.tls is None or self.link.tls is not None or self.link.peer == "unix":
            self._not_encrypted("SSL request")
            return True
        if self._buffer:
            # Whatever stands behind the request was sent in the clear, by the client or by somebody in
            # between (CVE-2021-23222).
            raise _unencrypted("SSL request")
        self._asked_gss = True
        self._begin_upgrade(direct=False)
        self.link.write(b"S")
        return False

    def _not_encrypted(self, request: str) -> None:
        """Answers a request for encryption with no; as by a server, nothing may stand behind it."""
        self.link.write(b"N")
        if self._buffer:
            raise _unencrypted(request)

    def greeted(self, first: bytes) -> bool:
        """Looks at the first byte, which is still in the socket: TLS at once is left to TLS. True: go on and
        read.
        """
        if first != _TLS_HANDSHAKE:
            return True
        self._asked_tls = self._asked_gss = True
        if self.context.tls is None:
            self.context.protocol_violated(self.link.peer, "direct TLS, which client_tls does not allow")
            self._end()
        else:
            self._begin_upgrade(direct=True)
        return False

    def _begin_upgrade(self, *, direct: bool) -> None:
        # What comes from now on is for TLS to read, and what comes by TLS waits until that is judged.
        self._step = self._hold
        self.link.pause()
        self._upgrading = self.context.loop.create_task(self._upgrade(direct=direct))

    async def _upgrade(self, *, direct: bool) -> None:
        link = self.link
        try:
            await link.start_tls(
                self.context.tls, server_side=True, timeout=self.context.settings.client.login_timeout
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            self._upgrading = None
            self.context.tls_failed(link.peer, str(error))
            self._end()
            return
        self._upgrading = None
        if direct and link.tls is not None and link.tls.selected_alpn_protocol() != ALPN:
            self.context.protocol_violated(link.peer, "direct TLS without ALPN")
            self._end()
            return
        self._step = self._start
        link.resume()
        self._go_on()

    def _hold(self) -> bool:
        return False

    def _cancel(self, request: CancelRequest) -> None:
        self._step = self._ignore
        self._deadline.cancel()
        self._cancelling = self.context.loop.create_task(self._cancel_and_close(request))

    async def _cancel_and_close(self, request: CancelRequest) -> None:
        await self.context.cancel(request.key)
        self._end()

    def _ignore(self) -> bool:
        self._buffer.clear()
        return False

    def _startup_message(self, message: StartupMessage) -> None:
        context = self.context
        self._startup = message
        notice = negotiation(message, context.newest_minor)
        if notice is not None:
            self.link.write(notice.encode())
            self._startup = StartupMessage(3, notice.minor, message.parameters)
        if (
            context.settings.client.tls is ClientTls.REQUIRE
            and self.link.tls is None
            and self.link.peer != "unix"
        ):
            raise Refused("28000", "connection requires TLS (client_tls = require)")
        user = message.user
        if user is None:
            raise Refused("28000", "no PostgreSQL user name specified in startup packet")
        if not _is_false(message.parameters.get("replication", "false")):
            raise Refused("0A000", "replication connections are not supported")
        self._begin_authentication(user)

    # -- authentication ----------------------------------------------------------------------------

    def _begin_authentication(self, user: str) -> None:
        authenticator = self.context.authenticator
        if authenticator.trusting:
            self._let_in(authenticator.credential(user), None)
            return
        if authenticator.md5_hash(user) is not None:
            self._md5_salt = self.context.new_salt()
            self.link.write(AuthenticationMD5Password(self._md5_salt).encode())
            self._step = self._md5
            return
        verifier, mock = authenticator.verifier(user)
        self._scram = ScramServer(verifier, mock=mock)
        self.link.write(AuthenticationSASL(("SCRAM-SHA-256",)).encode())
        self._step = self._sasl_initial

    def _password_message(self, what: str = "SASL") -> bytes | None:
        buffer = self._buffer
        if len(buffer) < 5:
            return None
        if buffer[0] != 0x70:
            raise ProtocolViolation(f"expected {what} response, got message type {buffer[0]}")
        length = int.from_bytes(buffer[1:5], "big")
        if not 4 <= length <= MAX_PASSWORD_MESSAGE:
            raise ProtocolViolation("invalid password packet size")
        if len(buffer) < length + 1:
            return None
        body = bytes(buffer[5 : length + 1])
        del buffer[: length + 1]
        return body

    def _md5(self) -> bool:
        body = self._password_message("password")
        if body is None:
            return False
        password = PasswordMessage.decode(body).password
        if not password:
            raise Refused("28P01", "empty password returned by client")
        user = self._startup.user or ""
        stored = self.context.authenticator.md5_hash(user)
        if stored is None or not verify_md5(stored, self._md5_salt, password):
            raise self._wrong_password()
        self._let_in(self.context.authenticator.credential(user), None)
        return False

    def _sasl_initial(self) -> bool:
        body = self._password_message()
        if body is None:
            return False
        initial = SASLInitialResponse.decode(body)
        if initial.mechanism != "SCRAM-SHA-256":
            raise ProtocolViolation("client selected an invalid SASL authentication mechanism")
        self._step = self._sasl
        if initial.data is None:
            self.link.write(AuthenticationSASLContinue(b"").encode())
            return True
        self._scram_step(initial.data)
        return True

    def _sasl(self) -> bool:
        body = self._password_message()
        if body is None:
            return False
        self._scram_step(SASLResponse.decode(body).data)
        return True

    def _scram_step(self, data: bytes) -> None:
        scram = self._scram
        assert scram is not None
        try:
            answer = scram.step(data)
        except AuthenticationFailed:
            raise self._wrong_password() from None
        if not scram.finished:
            self.link.write(AuthenticationSASLContinue(answer).encode())
            return
        self.link.write(AuthenticationSASLFinal(answer).encode())
        self._let_in(self.context.authenticator.credential(self._startup.user or ""), scram.keys)

    def _wrong_password(self) -> Refused:
        return Refused("28P01", f'password authentication failed for user "{self._startup.user}"')

    # -- after it ----------------------------------------------------------------------------------

    def _let_in(self, credential: Credential | None, keys: ScramKeys | None) -> None:
        """The client is who it says: it may come in once it is known what a server of its own would tell
        it.
        """
        self._step = self._keep
        if not self.context.authenticator.trusting:
            self._ok_sent = True
            self.link.write(_AUTHENTICATION_OK)
        parameters = tuple(
            sorted(
                (name, value)
                for name, value in self._startup.parameters.items()
                if name not in ("user", "database", "replication") and not name.startswith("_pq_.")
            )
        )
        self.pool = self.context.pool_for(self._startup.user, self._startup.database, credential, keys)
        self.flavour = self.pool.assignment.flavour(parameters)
        self.pool.session_began(self.flavour)
        if self.flavour.greeting is not None:
            self._enter(self.flavour.greeting)
            return
        server = self.pool.acquire(self, self.flavour)
        if server is not None:
            self.grant(server)

    def _keep(self) -> bool:
        """What the client sends before it is let in waits for the session."""
        if len(self._buffer) > MAX_PASSWORD_MESSAGE:
            self.link.pause()
        return False

    def wait(self) -> None:
        self.waiting_since = clock.now()

    def grant(self, server: ServerConnection) -> None:
        pool = self.pool
        assert pool is not None
        pool.give_back(server)
        self._enter(server.greeting)

    def refuse(self, refusal: Refusal) -> None:
        self._failed(refusal.sqlstate, refusal.message)
        if refusal.raw is not None:
            self.link.write(refusal.raw.removeprefix(_AUTHENTICATION_OK) if self._ok_sent else refusal.raw)
            self._end()
        else:
            self._refuse(refusal.sqlstate, refusal.message, refusal.detail)

    def _enter(self, greeting: Any) -> None:
        """Becomes a session."""
        link, pool, flavour = self.link, self.pool, self.flavour
        assert pool is not None
        self._deadline.cancel()
        self.context.arriving.discard(self)
        self.pool = None  # from now on the session's
        key = self.context.registry.new_key(greeting.pid, self._startup.minor)
        session = Session(link, pool, flavour, self.context, key)
        self.context.session_began(key, session)
        link.handler = session
        link.write(
            (b"" if self._ok_sent else _AUTHENTICATION_OK)
            + greeting.statuses
            + BackendKeyData(key.pid, key.secret).encode()
            + b"Z\0\0\0\5I"
        )
        link.resume()
        if self._buffer:
            session.received(bytes(self._buffer))

    # -- the end -----------------------------------------------------------------------------------

    def _too_late(self) -> None:
        self._refuse("08P01", "log-in took too long (login_timeout)")

    def _failed(self, sqlstate: str, reason: str) -> None:
        startup = self._startup
        self.context.login_failed(self.link.peer, startup.user, startup.database, sqlstate, reason)

    def _refuse(self, sqlstate: str, message: str, detail: str | None = None) -> None:
        if self._upgrading is None:
            self.link.write(say.error("FATAL", sqlstate, message, detail))
        self._end()

    def _end(self) -> None:
        self._leave()
        self.link.close()

    def ended(self) -> None:
        self._end()

    def lost(self, error: Exception | None) -> None:
        self._leave()

    def _leave(self) -> None:
        self._deadline.cancel()
        self.context.arriving.discard(self)
        if self._upgrading is not None:
            self._upgrading.cancel()
        pool = self.pool
        self.pool = None
        if pool is not None:
            pool.leave(self)
            self.context.flavour_left(pool, self.flavour)


def _unencrypted(request: str) -> ProtocolViolation:
    return ProtocolViolation(
        f"received unencrypted data after {request}",
        detail="This could be either a client-software bug or evidence of an attempted man-in-the-middle "
        "attack.",
    )


def _is_false(text: str) -> bool:
    """Whether PostgreSQL reads a Boolean start-up parameter as false."""
    text = text.lower()
    return text in ("0", "of", "off") or (text != "" and ("false".startswith(text) or "no".startswith(text)))
