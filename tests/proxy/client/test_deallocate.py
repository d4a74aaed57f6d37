import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.client.deallocate import deallocate_target, drops_all

ALL = [
    b"DEALLOCATE ALL",
    b"deallocate all",
    b"DEALLOCATE PREPARE ALL",
    b" \n\tDeallocate\r\n  All ; \n",
    b"DISCARD ALL",
    b"discard all;",
]
OTHERS = [
    b"",
    b"DEALLOCATE",
    b"DEALLOCATE;",
    b"DEALLOCATEx",
    b"DEALLOCATE a b",
    b"DEALLOCATE a; SELECT 1",
    b"DEALLOCATE a;;x",
    b'DEALLOCATE "a',
    b'DEALLOCATE ""',
    b"DEALLOCATE 'a'",
    b"DEALLOCATE 1a",
    b"DEALLOCATE a.b",
    b"SELECT 'DEALLOCATE a'",
    b"DISCARD TEMP",
    b"DISCARD PLANS",
    b"DISCARD a",
    b"PREPARE a AS SELECT 1",
]


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        (b"DEALLOCATE a", b"a"),
        (b"deallocate a", b"a"),
        (b"DEALLOCATE _pg3_12", b"_pg3_12"),
        (b"DEALLOCATE PREPARE a", b"a"),
        (b"\n DeAllocate\tPrepare\n a ;\n", b"a"),
        (b"DEALLOCATE a;", b"a"),
        (b"DEALLOCATE Name$1", b"name$1"),
        (b'DEALLOCATE "Name$1"', b"Name$1"),
        (b'DEALLOCATE "with ""quotes"""', b'with "quotes"'),
        (b'DEALLOCATE "all"', b"all"),
        (b'DEALLOCATE "__asyncpg_stmt_1__"', b"__asyncpg_stmt_1__"),
        ("DEALLOCATE größe".encode(), "größe".encode()),
        (b"DEALLOCATE allowed", b"allowed"),
        (b"DEALLOCATE prepared", b"prepared"),
    ],
)
def test_the_name_of_what_is_deallocated(sql: bytes, name: bytes) -> None:
    assert deallocate_target(sql) == name
    assert not drops_all(sql)


@pytest.mark.parametrize("sql", ALL)
def test_all(sql: bytes) -> None:
    assert drops_all(sql)
    assert deallocate_target(sql) is None


@pytest.mark.parametrize("sql", OTHERS)
def test_other_statements(sql: bytes) -> None:
    assert deallocate_target(sql) is None
    assert not drops_all(sql)


@given(st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name))
def test_any_quoted_name_is_read_back(name: bytes) -> None:
    assert deallocate_target(b'DEALLOCATE "%s"' % name.replace(b'"', b'""')) == name


@given(st.binary(max_size=60))
def test_any_bytes_can_be_asked_about(sql: bytes) -> None:
    assert deallocate_target(sql) is None or b"dealloc" in sql.lower()
    assert drops_all(sql) is False or b"all" in sql.lower()
