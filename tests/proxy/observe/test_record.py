"""What a statement is known by."""

from proxy.observe.record import Fingerprint, QueryRecord


def test_a_record_begins_with_nothing_measured() -> None:
    shape = Fingerprint(2**64 - 1, "select ?")
    record = QueryRecord(shape, "bob", "shop", 12.5, 40, True)
    assert record.fingerprint is shape
    assert (record.user, record.database, record.started, record.bytes_in) == ("bob", "shop", 12.5, 40)
    assert record.in_transaction
    assert (record.wait, record.server, record.total, record.rows, record.bytes_out) == (0.0, 0.0, 0.0, 0, 0)
    assert (record.sqlstate, record.server_pid) == ("", 0)
    assert shape.slot is None


def test_what_is_filled_in_later_stays() -> None:
    record = QueryRecord(Fingerprint(1, "select ?"), "bob", "shop", 0.0, 0, False)
    record.total, record.server, record.wait = 0.25, 0.125, 0.0625
    record.rows, record.bytes_out, record.sqlstate, record.server_pid = 2**40, 2**41, "57014", 4711
    assert (record.total, record.server, record.wait) == (0.25, 0.125, 0.0625)
    assert (record.rows, record.bytes_out, record.sqlstate, record.server_pid) == (
        2**40,
        2**41,
        "57014",
        4711,
    )


def test_both_print_what_they_are() -> None:
    record = QueryRecord(Fingerprint(255, "select ?"), "bob", "shop", 0.0, 0, False)
    assert repr(record.fingerprint) == "Fingerprint(00000000000000ff, 'select ?')"
    assert "user='bob', database='shop'" in repr(record)
