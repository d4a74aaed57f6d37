import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.auth.md5 import is_md5_hash, md5_hash, md5_response, verify, verify_password

# As PostgreSQL 15 wrote it: CREATE ROLE md5user PASSWORD 'pencil'.
STORED = "md50098e7fab7b4d8d091067152a80b3f12"


def test_the_hash_is_what_postgresql_stores() -> None:
    assert md5_hash("md5user", "pencil") == STORED
    assert is_md5_hash(STORED)


def test_the_right_answer_is_accepted() -> None:
    answer = md5_response(STORED, b"\1\2\3\4")
    assert is_md5_hash(answer)
    assert verify(STORED, b"\1\2\3\4", answer.encode())


@given(st.binary(max_size=40))
def test_no_other_answer_is(answer: bytes) -> None:
    assert not verify(STORED, b"\1\2\3\4", answer)


def test_an_answer_is_good_for_its_salt_only() -> None:
    assert not verify(STORED, b"\1\2\3\5", md5_response(STORED, b"\1\2\3\4").encode())


def test_the_stored_hash_itself_is_no_answer() -> None:
    assert not verify(STORED, b"\1\2\3\4", STORED.encode())


def test_a_password_in_clear_text() -> None:
    assert verify_password(STORED, "md5user", "pencil")
    assert not verify_password(STORED, "md5user", "Pencil")
    assert not verify_password(STORED, "somebody", "pencil")


def test_passwords_may_be_any_bytes() -> None:
    password = b"m\xfcll".decode("utf-8", "surrogateescape")
    assert verify_password(md5_hash("ann", password), "ann", password)


@pytest.mark.parametrize(
    "text", ["", "pencil", "md5", STORED[:-1], STORED + "0", STORED.upper(), STORED + "\n", "md5" + "g" * 32]
)
def test_what_is_no_hash(text: str) -> None:
    assert not is_md5_hash(text)
    with pytest.raises(ValueError, match="not an md5 password hash"):
        md5_response(text, b"\1\2\3\4")
