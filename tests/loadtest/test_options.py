"""The command line."""

import pytest

from loadtest.options import parse_options


def test_defaults_are_the_whole_grid() -> None:
    options = parse_options([])
    assert (options.seconds, options.rounds, options.clients) == (4, 3, (1, 16, 64))
    assert options.protocols == ("simple", "extended", "prepared")
    assert options.targets == ("direct", "pgbouncer", "pgsluice")


def test_quick_shortens_what_was_not_given() -> None:
    assert (parse_options(["--quick"]).seconds, parse_options(["--quick"]).rounds) == (1, 2)
    assert parse_options(["--quick", "--seconds", "7"]).seconds == 7


def test_choices_come_in_their_usual_order() -> None:
    options = parse_options(["--targets", "pgsluice,direct", "--clients", "64,1,64"])
    assert (options.targets, options.clients) == (("direct", "pgsluice"), (64, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocols", "simple,binary"], "binary: choose from simple, extended, prepared"),
        (["--clients", "0"], "0 is less than 1"),
        (["--clients", "many"], "invalid"),
    ],
)
def test_wrong_values_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_options(arguments)
    assert message in capsys.readouterr().err
