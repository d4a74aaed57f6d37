"""The order of the runs: everything measured equally often, nobody always first."""

from collections import Counter

from loadtest.plan import TARGETS, Cell, grid, interleave


def test_grid_has_every_combination_once() -> None:
    cells = grid(["select-only", "tpcb-like"], ["simple", "prepared"], [1, 64])
    assert len(cells) == len(set(cells)) == 8
    assert cells[0] == Cell("select-only", "simple", 1)


def test_every_cell_meets_every_target_once_a_round() -> None:
    cells = grid(["select-only"], ["simple", "extended"], [1, 16])
    runs = list(interleave(cells, TARGETS, 3))
    assert Counter((run.round, run.cell, run.target) for run in runs) == Counter(
        (round_, cell, target) for round_ in (1, 2, 3) for cell in cells for target in TARGETS
    )


def test_targets_of_a_cell_follow_each_other() -> None:
    cells = grid(["select-only"], ["simple"], [1, 16])
    runs = list(interleave(cells, TARGETS, 2))
    for start in range(0, len(runs), 3):
        assert len({(run.round, run.cell) for run in runs[start : start + 3]}) == 1


def test_each_target_comes_first_equally_often() -> None:
    cells = grid(["select-only"], ["simple", "extended"], [1, 16])
    runs = list(interleave(cells, TARGETS, 3))
    for cell in cells:
        firsts = [
            next(run.target for run in runs if (run.round, run.cell) == (round_, cell))
            for round_ in (1, 2, 3)
        ]
        assert sorted(firsts) == sorted(TARGETS)


def test_cells_of_a_round_start_with_different_targets() -> None:
    cells = grid(["select-only"], ["simple"], [1, 16, 64])
    runs = list(interleave(cells, TARGETS, 1))
    assert {run.target for run in runs[::3]} == set(TARGETS)
