"""A link with a handler that notes what it is told, and the socket at the other end."""

import socket

from support.sockets import Turns, read_all

from proxy.net.link import Link, LinkHandler

MUCH = bytes(range(256)) * 16_384
"""4 MB: more than any socket takes at once."""


class Recorder(LinkHandler):
    """Notes the calls of its link, in order; what was received is put together."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data = b""
        self.error: Exception | None = None

    def received(self, data: bytes) -> None:
        self.data += data
        self._note("received")

    def ended(self) -> None:
        self._note("ended")

    def lost(self, error: Exception | None) -> None:
        self.error = error
        self._note("lost")

    def choked(self) -> None:
        self._note("choked")

    def cleared(self) -> None:
        self._note("cleared")

    def _note(self, call: str) -> None:
        if self.calls[-1:] != [call] or call != "received":
            self.calls.append(call)


class End:
    """A link, its handler, and the socket at the other end."""

    def __init__(self, turns: Turns, sockets: tuple[socket.socket, socket.socket] | None = None) -> None:
        near, self.far = sockets or turns.pair()
        self.turns = turns
        self.handler = Recorder()
        self.link = Link(turns.poller, turns.loop, self.handler)
        self.link.attach(near, "peer")

    @property
    def calls(self) -> list[str]:
        return self.handler.calls

    def drain(self, size: int) -> bytes:
        """Reads that many bytes at the other end."""
        data = b""

        def enough() -> bool:
            nonlocal data
            data += read_all(self.far)
            return len(data) >= size

        self.turns.until(enough)
        return data

    def hang_up(self) -> None:
        self.far.close()
