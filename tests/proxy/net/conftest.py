"""Every test of the network runs on both event loops, with epoll and without."""

from collections.abc import Iterator

import pytest
from support.sockets import LOOPS, Turns, turning


@pytest.fixture(params=["epoll", "no epoll"])
def epoll(request: pytest.FixtureRequest) -> bool:
    """Whether there is epoll."""
    return bool(request.param == "epoll")


@pytest.fixture(params=LOOPS)
def turns(request: pytest.FixtureRequest, epoll: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[Turns]:
    with turning(request.param, epoll, monkeypatch) as turns:
        yield turns
