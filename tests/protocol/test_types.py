import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.types import (
    CANCEL_REQUEST_CODE,
    GSSENC_REQUEST_CODE,
    LSN,
    PROTOCOL_3_0,
    PROTOCOL_3_2,
    SSL_REQUEST_CODE,
    BackendTag,
    CancelKey,
    FrontendTag,
    TransactionStatus,
)


def test_numbers_are_the_manuals() -> None:
    assert (PROTOCOL_3_0, PROTOCOL_3_2) == (196608, 196610)
    assert (CANCEL_REQUEST_CODE, SSL_REQUEST_CODE, GSSENC_REQUEST_CODE) == (80877102, 80877103, 80877104)


def test_tags_are_the_manuals() -> None:
    assert bytes(sorted(FrontendTag)) == b"BCDEFHPQSXcdfp"
    assert bytes(sorted(BackendTag)) == b"123ACDEGHIKNRSTVWZcdnstv"
    assert bytes(TransactionStatus) == b"ITE"


def test_a_cancel_key_does_not_show_its_secret() -> None:
    key = CancelKey(42, b"hush")
    assert "hush" not in f"{key!r} {key}"
    assert key == (42, b"hush")


def test_lsn_is_spelt_as_pg_lsn() -> None:
    assert LSN.parse("16/B374D848") == 0x16B374D848
    assert str(LSN(0x16B374D848)) == "16/B374D848"
    assert str(LSN(0)) == "0/0"


@given(st.integers(0, 2**64 - 1))
def test_lsn_survives_its_text(position: int) -> None:
    assert LSN.parse(str(LSN(position))) == position


@pytest.mark.parametrize(
    "text", ["", "/", "1", "1/", "/1", "g/0", "123456789/0", "1/2/3", " 1/2", "1/2\n", "-1/2", "٣/٣"]
)
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid input syntax for type pg_lsn"):
        LSN.parse(text)
