"""Free TCP ports on the loopback interface."""

import random
import socket

_LOWEST, _HIGHEST = 20_000, 32_000
_handed_out: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on, below the range the kernel takes for outgoing connections.

    A port from that range could be taken by any client's connection between this call and the bind. No port
    is handed out twice by one process. Raises OSError when none is free.
    """
    for _ in range(1000):
        port = random.randrange(_LOWEST, _HIGHEST)
        if port in _handed_out:
            continue
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As the servers themselves do: a connection of an earlier listener in TIME_WAIT is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        _handed_out.add(port)
        return port
    raise OSError(f"no free TCP port between {_LOWEST} and {_HIGHEST} on {host}")
