"""Free loopback ports."""

import random
import socket

# Below the kernel's usual range for outgoing connections (32768-60999), so that a client's own end of some
# connection never takes the port between choosing and binding it.
_LOWEST, _HIGHEST = 20000, 32000
_ATTEMPTS = 200


def free_port() -> int:
    """A TCP port nobody listens on at 127.0.0.1. Raises OSError when none is found."""
    for _ in range(_ATTEMPTS):
        port = random.randrange(_LOWEST, _HIGHEST)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port between {_LOWEST} and {_HIGHEST} in {_ATTEMPTS} attempts")
