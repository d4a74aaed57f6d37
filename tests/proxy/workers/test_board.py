"""Whose turn it is to accept: the worker's with the fewest clients."""

import os

from proxy.workers.board import Board


def test_who_has_more_lets_the_others_go_first() -> None:
    board = Board.new(3)
    board.write(0, 5)
    board.write(1, 4)
    board.write(2, 5)
    assert board.others_first(0, 5)
    assert not board.others_first(1, 4)
    assert not board.others_first(1, 0)


def test_equals_all_go() -> None:
    board = Board.new(2)
    board.write(1, 3)
    assert not board.others_first(0, 3)
    assert board.others_first(0, 4)


def test_a_worker_that_is_gone_is_waited_for_by_nobody() -> None:
    board = Board.new(2)
    assert not board.others_first(0, 100)
    board.write(1, 0)
    assert board.others_first(0, 100)
    board.wipe(1)
    assert not board.others_first(0, 100)


def test_a_load_is_seen_by_the_others_as_soon_as_it_is_asked_with() -> None:
    board = Board.new(2)
    other = Board(os.fdopen(os.dup(board.file.fileno()), "r+b", buffering=0), 2)
    assert not board.others_first(0, 1)
    assert not other.others_first(1, 1)
    assert other.others_first(1, 2)
    assert not board.others_first(0, 2)
