import pytest

from protocol.messages.frontend import Parse
from proxy.query.statements import NAME_PREFIX, StatementCatalog


def key(sql: bytes, *types: int) -> bytes:
    """What stands behind the name in a Parse message."""
    return Parse(b"", sql, types).encode()[6:]


def test_equal_texts_share_a_statement() -> None:
    catalog = StatementCatalog()
    statement = catalog.find(key(b"select 1"))
    assert catalog.find(key(b"select 1")) is statement
    assert len(catalog) == 1


@pytest.mark.parametrize(
    "other", [key(b"select 2"), key(b"SELECT 1"), key(b"select 1 "), key(b"select 1", 23), key(b"")]
)
def test_another_text_or_other_types_make_another_statement(other: bytes) -> None:
    catalog = StatementCatalog()
    first, second = catalog.find(key(b"select 1")), catalog.find(other)
    assert first is not second
    assert first.name != second.name


def test_types_belong_to_the_identity() -> None:
    catalog = StatementCatalog()
    names = {catalog.find(key(b"select $1", *types)).name for types in [(), (0,), (23,), (25,), (23, 23)]}
    assert len(names) == 5


def test_a_statement_knows_its_text_and_its_shape() -> None:
    statement = StatementCatalog().find(key(b"select * from t where id = 5", 23))
    assert statement.text() == b"select * from t where id = 5"
    assert statement.key == key(b"select * from t where id = 5", 23)
    assert statement.fingerprint.text == "select * from t where id = ?"


def test_it_is_prepared_under_its_own_name() -> None:
    statement = StatementCatalog().find(key(b"select $1", 23))
    assert statement.parse() == Parse(statement.name, b"select $1", (23,)).encode()
    assert statement.parse() == statement.parse()
    assert statement.name.startswith(NAME_PREFIX)


def test_a_name_is_hardly_met_by_chance() -> None:
    assert NAME_PREFIX.startswith(b"pgsluice_")
    assert len(NAME_PREFIX) > len(b"pgsluice_") + 8
    assert len(StatementCatalog().find(key(b"")).name) < 64  # what PostgreSQL keeps of a name in SQL


def test_texts_that_differ_in_literals_share_a_fingerprint_only() -> None:
    catalog = StatementCatalog()
    first, second = catalog.find(key(b"select 1")), catalog.find(key(b"select 2"))
    assert first is not second
    assert first.fingerprint is second.fingerprint


def test_the_catalog_is_bounded() -> None:
    catalog = StatementCatalog(limit=16)
    for number in range(1000):
        catalog.find(key(b"select %d" % number))
        assert len(catalog) <= 16
    assert len(catalog) > 8


def test_what_was_used_longest_ago_is_forgotten() -> None:
    catalog = StatementCatalog(limit=8)
    statements = [catalog.find(key(b"select %d" % number)) for number in range(8)]
    assert catalog.find(key(b"select 0")) is statements[0]
    catalog.find(key(b"one too many"))
    assert catalog.find(key(b"select 0")) is statements[0]
    assert catalog.find(key(b"select 1")) is not statements[1]


def test_a_forgotten_statement_stays_as_it_was_and_its_name_its_own() -> None:
    """Sessions go on using it: the name must not come to stand for another text."""
    catalog = StatementCatalog(limit=4)
    statement = catalog.find(key(b"select 0"))
    name = statement.name
    names = {catalog.find(key(b"select %d" % number)).name for number in range(1, 500)}
    assert name not in names
    assert statement.parse() == Parse(name, b"select 0").encode()
    again = catalog.find(key(b"select 0"))
    assert again is not statement
    assert again.name not in names | {name}


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_a_small_catalog_works(limit: int) -> None:
    catalog = StatementCatalog(limit)
    for number in range(20):
        statement = catalog.find(key(b"select %d" % number))
        assert catalog.find(key(b"select %d" % number)) is statement
        assert len(catalog) <= limit
