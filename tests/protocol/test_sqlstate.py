import re

import pytest

from protocol import sqlstate

STATES = {name: value for name, value in vars(sqlstate).items() if name.isupper()}


def test_every_state_is_well_formed_and_named_once() -> None:
    assert STATES
    assert all(re.fullmatch("[0-9A-Z]{5}", state) for state in STATES.values())
    assert len(set(STATES.values())) == len(STATES)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("PROTOCOL_VIOLATION", "08P01"),
        ("SQLCLIENT_UNABLE_TO_CONNECT", "08001"),
        ("CONNECTION_FAILURE", "08006"),
        ("FEATURE_NOT_SUPPORTED", "0A000"),
        ("INVALID_AUTHORIZATION", "28000"),
        ("INVALID_PASSWORD", "28P01"),
        ("INVALID_CATALOG_NAME", "3D000"),
        ("TOO_MANY_CONNECTIONS", "53300"),
        ("QUERY_CANCELED", "57014"),
        ("ADMIN_SHUTDOWN", "57P01"),
        ("CRASH_SHUTDOWN", "57P02"),
        ("CANNOT_CONNECT_NOW", "57P03"),
    ],
)
def test_states_clients_react_to(name: str, state: str) -> None:
    assert STATES[name] == state
