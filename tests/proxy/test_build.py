import sys
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import pytest

from proxy import build

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())


def loaded(monkeypatch: pytest.MonkeyPatch, files: list[str]) -> None:
    """Pretend that the hot modules have been loaded from these files."""
    monkeypatch.setattr(build, "HOT_MODULES", tuple(f"hot{number}" for number in range(len(files))))
    for number, file in enumerate(files):
        module = ModuleType(f"hot{number}")
        module.__file__ = file
        monkeypatch.setitem(sys.modules, f"hot{number}", module)


def test_the_hot_modules_are_those_that_are_compiled() -> None:
    extensions = [module["name"] for module in PYPROJECT["tool"]["setuptools"]["ext-modules"]]
    assert sorted(build.HOT_MODULES) == sorted(extensions)


def test_the_version_is_that_of_the_distribution() -> None:
    assert PYPROJECT["project"]["version"] == build.VERSION


@pytest.mark.parametrize(
    ("files", "form"),
    [
        (["a.py", "b.py"], "pure"),
        ([f"a{EXTENSION_SUFFIXES[0]}", f"b{EXTENSION_SUFFIXES[-1]}"], "compiled"),
        ([f"a{EXTENSION_SUFFIXES[0]}", "b.py"], "mixed"),
    ],
)
def test_the_form_is_that_of_the_files(files: list[str], form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(monkeypatch, files)
    assert build.form() == form


def test_modules_that_are_not_loaded_count_without_being_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hot_but_broken.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(build, "HOT_MODULES", ("hot_but_broken", "no.such.module"))
    assert build.form() == "pure"
    assert "hot_but_broken" not in sys.modules
