"""Writes the tables of settings into README.md and docs/settings.md, from the schema that checks them.

    make install && .venv/bin/python docs/make_settings.py            writes them
    make install && .venv/bin/python docs/make_settings.py --check    exit code 1 when one is out of date

A table stands between the lines `<!-- settings:begin -->` and `<!-- settings:end -->`; what is around them is
written by hand.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from proxy.config.schema import Setting, all_settings

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- settings:begin -->", "<!-- settings:end -->"


def full_table() -> str:
    """Every setting with all there is to say about it."""
    header = ("Setting", "Default", "Allowed", "Meaning", "Variables")
    return _table(
        header,
        [
            (
                f"`{one.name}`",
                _default(one),
                _text(one.allowed),
                _text(one.meaning),
                _variables(one),
            )
            for one in all_settings()
        ],
    )


def short_table() -> str:
    """Every setting on a line short enough to read."""
    header = ("Setting", "Default", "Meaning")
    return _table(header, [(f"`{one.name}`", _default(one), _text(one.meaning)) for one in all_settings()])


PAGES: dict[str, Callable[[], str]] = {"README.md": short_table, "docs/settings.md": full_table}


def renewed(page: str, table: str) -> str:
    """The page with the table between its markers. Raises ValueError when it has not one pair of them."""
    before, begin, rest = page.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or BEGIN in old:
        raise ValueError(f"needed is one {BEGIN} and one {END} behind it")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))


def _default(setting: Setting) -> str:
    if setting.default:
        return f"`{setting.default}`"
    return "needed" if setting.name == "primary" else "none"


def _variables(setting: Setting) -> str:
    """The spelling with two underscores, which every section's settings have too, is left to the prose."""
    names = [name for name in setting.environment if "__" not in name]
    files = [f"{name}_FILE" for name in names] if setting.secret else []
    return "<br>".join(f"`{name}`" for name in (*names, *files))


def _text(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0, or 1 when `--check` finds a page out of date."""
    check = "--check" in arguments
    outdated = []
    for name, table in PAGES.items():
        path = ROOT / name
        page = path.read_text(encoding="utf-8")
        new = renewed(page, table())
        if new == page:
            continue
        outdated.append(name)
        if not check:
            path.write_text(new, encoding="utf-8")
    if outdated:
        print(("out of date: " if check else "written: ") + ", ".join(outdated))
    return 1 if check and outdated else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
