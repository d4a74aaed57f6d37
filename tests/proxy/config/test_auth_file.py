from pathlib import Path

import pytest

from protocol.auth.scram import ScramVerifier
from proxy.config.auth_file import Md5Hash, PlainPassword, read_auth_file
from proxy.config.url import Secret
from proxy.errors import ConfigError

VERIFIER = ScramVerifier.from_password("hunter2", salt=b"0123456789abcdef", iterations=4096)
MD5 = "md5" + "0123456789abcdef" * 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "users.txt"


def refused(file: Path, text: str | bytes) -> str:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        read_auth_file(file)
    line = str(caught.value)
    assert line.isprintable()
    assert "hunter2" not in line
    return line


def test_the_three_kinds_of_secret(file: Path) -> None:
    file.write_text(f'"scram" "{VERIFIER}"\n"md5" "{MD5}"\n"plain" "hunter2"\n')
    assert read_auth_file(str(file)) == {
        "scram": VERIFIER,
        "md5": Md5Hash(Secret(MD5)),
        "plain": PlainPassword(Secret("hunter2")),
    }


def test_what_only_looks_like_an_md5_hash_is_a_password(file: Path) -> None:
    file.write_text(f'"a" "{MD5}0"\n"b" "{MD5[:-1]}"\n"c" "{MD5.upper()}"')
    assert {type(credential) for credential in read_auth_file(file).values()} == {PlainPassword}


def test_comments_blanks_and_line_endings(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf# one\r\n; two\r\n\r\n  "a"\t"b"  \r\n   # three\r\n"c" "d"')
    assert list(read_auth_file(file)) == ["a", "c"]


def test_doubled_quotes_and_other_characters_of_names(file: Path) -> None:
    file.write_text('"say ""hi""" """"\n"#no comment" "a # b"\n"jürgen" "pä ss"\n', encoding="utf-8")
    users = read_auth_file(file)
    assert users == {
        'say "hi"': PlainPassword(Secret('"')),
        "#no comment": PlainPassword(Secret("a # b")),
        "jürgen": PlainPassword(Secret("pä ss")),
    }


def test_an_empty_file_has_no_users(file: Path) -> None:
    file.write_text("")
    assert read_auth_file(file) == {}


@pytest.mark.parametrize(
    "line",
    [
        "a b",
        '"a"',
        '"a" hunter2',
        '"a""hunter2"',
        '"a" "hunter2',
        '"a" "hunter2" more',
        '"a" "hunter"2"',
        "'a' 'hunter2'",
    ],
)
def test_other_lines_are_refused_by_file_and_line(line: str, file: Path) -> None:
    assert refused(file, f'# users\n"x" "y"\n{line}\n') == (
        f'{file}, line 3: a line is "user" "secret", both in double quotes'
    )


@pytest.mark.parametrize(
    "secret",
    [
        "SCRAM-SHA-256$hunter2",
        "SCRAM-SHA-256$",
        "SCRAM-SHA-256$4096:!!!!$hunter2:hunter2",
        "SCRAM-SHA-256$0:c2FsdA==$hunter2:hunter2",
    ],
)
def test_a_broken_verifier_is_no_password(secret: str, file: Path) -> None:
    assert refused(file, f'"a" "{secret}"').startswith(f"{file}, line 1: a broken SCRAM verifier")


def test_other_mistakes(file: Path) -> None:
    assert refused(file, '"a" "hunter2"\n"a" "hunter2"') == f"{file}, line 2: user 'a' is there twice"
    assert refused(file, '"" "hunter2"') == f"{file}, line 1: the user's name is empty"
    assert "the secret of user 'a' is empty" in refused(file, '"a" ""')
    assert refused(file, b'"a" "hunter2\0"') == f"{file}, line 1: a zero byte in the line"
    assert refused(file, b'\n"a" "hunter2\xff"') == f"{file}, line 2: not UTF-8"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_auth_file(tmp_path / "none")
    assert caught.value.setting == "auth.file"
    assert "No such file" in str(caught.value)


def test_secrets_do_not_print(file: Path) -> None:
    file.write_text(f'"scram" "{VERIFIER}"\n"md5" "{MD5}"\n"plain" "hunter2"\n')
    printed = repr(read_auth_file(file))
    assert "hunter2" not in printed
    assert MD5 not in printed
    assert str(VERIFIER).rpartition(":")[2] not in printed


def test_secrets_can_be_revealed() -> None:
    assert PlainPassword(Secret("hunter2")).reveal() == "hunter2"
    assert Md5Hash(Secret(MD5)).reveal() == MD5
