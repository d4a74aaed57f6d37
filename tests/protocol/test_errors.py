import pytest

from protocol.errors import (
    AuthenticationFailed,
    ProtocolError,
    ProtocolViolation,
    UnsupportedFeature,
    UnsupportedProtocolVersion,
)


@pytest.mark.parametrize(
    ("kind", "sqlstate"),
    [
        (ProtocolViolation, "08P01"),
        (UnsupportedProtocolVersion, "0A000"),
        (UnsupportedFeature, "0A000"),
        (AuthenticationFailed, "28P01"),
    ],
)
def test_an_error_knows_its_sqlstate_and_message(kind: type[ProtocolError], sqlstate: str) -> None:
    error = kind("what happened")
    assert isinstance(error, ProtocolError)
    assert (error.sqlstate, error.message, error.detail) == (sqlstate, "what happened", None)
    assert str(error) == "what happened"


def test_whoever_catches_violations_catches_unsupported_features() -> None:
    assert issubclass(UnsupportedFeature, ProtocolViolation)


def test_why_an_authentication_failed_is_not_in_what_the_client_may_see() -> None:
    error = AuthenticationFailed(reason="no such user")
    assert error.reason == "no such user"
    assert "no such user" not in f"{error} {error.message} {error.detail}"
