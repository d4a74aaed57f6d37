"""Cancel keys: unique, unguessable, and telling whose they are."""

import pytest

from protocol.types import CancelKey
from proxy.client.registry import Registry


@pytest.mark.parametrize(("minor", "length"), [(0, 4), (2, 32)])
@pytest.mark.parametrize("workers", [1, 2, 3, 256])
def test_a_key_tells_its_worker(workers: int, minor: int, length: int) -> None:
    registries = [Registry(worker, workers) for worker in range(workers)]
    for registry in registries:
        key = registry.new_key(4711, minor)
        assert key.pid == 4711
        assert len(key.secret) == length
        assert all(each.owner(key) == registry.worker for each in registries)


def test_keys_differ() -> None:
    registry = Registry(255, 256)
    assert len({registry.new_key(1, 0) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("minor", [0, 2])
def test_no_bit_of_a_key_is_always_the_same_in_all_workers(minor: int) -> None:
    ones = zeros = 0
    for worker in range(3):
        registry = Registry(worker, 3)
        for _ in range(200):
            number = int.from_bytes(registry.new_key(1, minor).secret, "big")
            ones |= number
            zeros |= ~number
    every_bit = (1 << (32 if minor == 0 else 256)) - 1
    assert ones == every_bit
    assert zeros & every_bit == every_bit


def test_a_strangers_key_has_an_owner_who_does_not_know_it() -> None:
    registry = Registry(1, 2)
    key = CancelKey(1, b"\0\0\0\1")
    assert registry.owner(key) == 1
    assert registry.find(key) is None
