import pytest

from protocol.errors import ProtocolViolation
from protocol.messages.backend import FieldDescription, RowDescription
from proxy.server.prepared import NONE, UNKNOWN, ServerStatements, row_shape


@pytest.fixture
def statements() -> ServerStatements:
    return ServerStatements(3)


def settled(statements: ServerStatements, **generations: int) -> None:
    """Notes statements whose Parse is over."""
    for name, generation in generations.items():
        statements.note(name.encode(), generation, 1)
    statements.settled()


def test_a_new_connection_has_no_statements(statements: ServerStatements) -> None:
    assert (len(statements), statements.names(), statements.unnamed) == (0, [], NONE)
    assert not statements.has(b"a")
    assert not statements.use(b"a", 1, 1)


def test_what_was_prepared_can_be_used(statements: ServerStatements) -> None:
    settled(statements, a=5)
    assert statements.has(b"a")
    assert statements.use(b"a", 5, 2)


@pytest.mark.parametrize(("generation", "usable"), [(4, True), (5, True), (6, False)])
def test_an_older_statement_does_not_serve_a_newer_parse(
    statements: ServerStatements, generation: int, usable: bool
) -> None:
    settled(statements, a=5)
    assert statements.use(b"a", generation, 2) is usable


def test_until_its_segment_is_over_only_that_relies_on_a_statement(statements: ServerStatements) -> None:
    statements.note(b"a", 5, 1)
    assert statements.use(b"a", 5, 1)
    assert not statements.use(b"a", 5, 2)
    statements.settled()
    assert statements.use(b"a", 5, 2)


def test_what_is_in_doubt_is_not_used_but_may_be_there(statements: ServerStatements) -> None:
    settled(statements, a=5)
    statements.doubt(b"a")
    assert statements.has(b"a")
    assert not statements.use(b"a", 1, 2)
    statements.doubt(b"never seen")
    assert statements.has(b"never seen")
    assert not statements.use(b"never seen", 1, 2)
    settled(statements, a=6)
    assert statements.use(b"a", 6, 2)


def test_a_failed_parse_leaves_the_unnamed_statement_unknown(statements: ServerStatements) -> None:
    statements.unnamed = 7
    statements.doubt(b"")
    assert statements.unnamed == UNKNOWN
    assert statements.names() == []


def test_what_is_closed_is_forgotten(statements: ServerStatements) -> None:
    settled(statements, a=1)
    statements.note_shape(b"a", ("shape",))
    statements.forget(b"a")
    statements.forget(b"a")
    assert (statements.names(), statements.described(b"a")) == ([], False)


def test_above_the_limit_the_one_used_longest_ago_gives_way(statements: ServerStatements) -> None:
    settled(statements, a=1, b=2, c=3)
    assert statements.surplus(b"c") is None
    assert statements.use(b"a", 1, 2)
    settled(statements, d=4)
    assert statements.surplus(b"d") == b"b"
    statements.forget(b"b")
    assert statements.surplus(b"d") is None


def test_the_one_that_is_being_prepared_never_gives_way() -> None:
    statements = ServerStatements(0)
    settled(statements, a=1)
    assert statements.surplus(b"a") is None
    settled(statements, b=2)
    assert statements.surplus(b"b") == b"a"


def test_what_is_in_doubt_counts(statements: ServerStatements) -> None:
    statements.doubt(b"doubtful")
    settled(statements, a=1, b=2, c=3)
    assert statements.surplus(b"c") == b"doubtful"


def test_all_can_be_dropped_but_those_being_prepared(statements: ServerStatements) -> None:
    settled(statements, a=1, b=2, c=3)
    statements.dropped({b"b", None})
    assert statements.names() == [b"b"]


def test_shapes_belong_to_what_was_prepared_last(statements: ServerStatements) -> None:
    settled(statements, a=1)
    assert not statements.described(b"a")
    statements.note_shape(b"a", (b"column",))
    assert statements.described(b"a")
    assert statements.shape(b"a") == (b"column",)
    settled(statements, a=2)
    assert not statements.described(b"a")
    assert statements.shape(b"a") is None


def test_a_shape_may_be_too_long_to_look_at(statements: ServerStatements) -> None:
    settled(statements, a=1)
    statements.note_shape(b"a", None)
    assert statements.described(b"a")
    assert statements.shape(b"a") is None


def test_shapes_of_unknown_statements_are_of_no_interest(statements: ServerStatements) -> None:
    statements.note_shape(b"a", (b"column",))
    assert not statements.described(b"a")


COLUMN = FieldDescription(b"name", 100, 1, 23, 4, -1, 0)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (FieldDescription(b"name", 200, 9, 23, 8, -1, 1), True),
        (FieldDescription(b"other", 100, 1, 23, 4, -1, 0), False),
        (FieldDescription(b"name", 100, 1, 25, 4, -1, 0), False),
        (FieldDescription(b"name", 100, 1, 23, 4, 10, 0), False),
    ],
)
def test_names_types_and_modifiers_make_a_shape(other: FieldDescription, same: bool) -> None:
    shapes = [row_shape(RowDescription((column,)).body()) for column in (COLUMN, other)]
    assert (shapes[0] == shapes[1]) is same


def test_columns_that_are_added_change_a_shape() -> None:
    assert row_shape(RowDescription((COLUMN,)).body()) != row_shape(RowDescription((COLUMN, COLUMN)).body())


def test_a_shape_that_can_not_be_read_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation):
        row_shape(b"\0\5")
