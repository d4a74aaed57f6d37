"""Starting a worker: a new interpreter, which inherits sockets and is told the rest on its standard input.

Not a fork of the supervisor, which has an event loop, perhaps threads, and on macOS libraries that do not
survive being forked.
"""

from __future__ import annotations

import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from proxy.config.schema import Settings

_PROGRAM = (
    "import pickle, sys; "
    "sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from proxy.workers.worker import main; "
    "sys.exit(main())"
)


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker has to know: that it is number `worker` (from 0) of `workers`, the settings (those of the
    whole instance), and the descriptors it has inherited.
    """

    worker: int
    workers: int
    settings: Settings
    control: int
    board: int
    listening: tuple[int, ...]


def start_worker(
    worker: int, settings: Settings, board: BinaryIO, listening: Sequence[socket.socket]
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A worker's process, and the supervisor's end of the socket pair between them.  Raises `OSError`."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            orders = Orders(
                worker,
                settings.workers,
                settings,
                theirs.fileno(),
                board.fileno(),
                tuple(sock.fileno() for sock in listening),
            )
            process = _spawn(orders)
        _tell(process, orders)
    except BaseException:
        ours.close()
        raise
    return process, ours


def _spawn(orders: Orders) -> subprocess.Popen[bytes]:
    # Ctrl-C goes to all processes of a terminal, but only the supervisor shall act on it: the worker inherits
    # the mask, so that not even the start of its interpreter is interrupted.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(
            # -P: the current directory must not decide which form of the package runs.  The last words are
            # for whoever lists processes.
            [
                sys.executable,
                "-P",
                "-c",
                _PROGRAM,
                f"pgsluice worker {orders.worker + 1} of {orders.workers}",
            ],
            stdin=subprocess.PIPE,
            pass_fds=(orders.control, orders.board, *orders.listening),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tell(process: subprocess.Popen[bytes], orders: Orders) -> None:
    assert process.stdin is not None
    try:
        with process.stdin as stream:
            pickle.dump(sys.path, stream)
            pickle.dump(orders, stream)
    except BrokenPipeError:
        pass  # it has died already, which its exit will tell


def read_orders() -> Orders:
    """The orders of this process.  Raises `EOFError` when the supervisor is gone."""
    orders: Orders = pickle.load(sys.stdin.buffer)
    sys.stdin.close()
    return orders
