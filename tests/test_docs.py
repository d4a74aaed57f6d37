"""The documentation says what is: settings, metrics and fields are all there, and links lead somewhere."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from proxy.admin import views
from proxy.observe.metrics import BuildInfo, ClientFigures, Metrics, PoolFigures
from proxy.observe.statistics import QueryStatistics

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def make_settings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_settings", ROOT / "docs/make_settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["README.md", "docs/settings.md"])
def test_the_table_of_settings_is_the_schemas(name: str) -> None:
    script = make_settings()

    assert page(name) == script.renewed(page(name), script.PAGES[name]()), (
        "out of date: make install && .venv/bin/python docs/make_settings.py"
    )


def test_a_page_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="settings:begin"):
        make_settings().renewed("no markers here", "table")


class OnePool:
    def pools(self) -> list[PoolFigures]:
        return [PoolFigures("u", "d", 1, "transaction", 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0)]

    def clients(self) -> ClientFigures:
        return ClientFigures(0, 0, 0, 0, 0, 0)


def test_every_metric_is_documented_with_its_type_and_no_other() -> None:
    text, _ = Metrics(QueryStatistics(), OnePool(), BuildInfo.current()).render()
    served = set(re.findall(r"^# TYPE (\w+) (\w+)$", text.decode(), re.MULTILINE))
    rows = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \|", re.MULTILINE)
    documented = set(rows.findall(page("docs/metrics.md")))

    # Linux's alone; elsewhere they are documented and not served.
    on_linux_only = {pair for pair in documented if pair[0].startswith("process_")}
    assert documented - on_linux_only == served - on_linux_only
    assert served <= documented


def test_every_field_and_order_of_api_queries_is_documented() -> None:
    section = page("docs/metrics.md").partition("## `/api/queries`")[2].partition("## Memory")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    sorts = re.search(r"^\| `sort` \| ([^|]*) \|", section, re.MULTILINE)

    assert sorted(named) == sorted(["sort", "order", "limit", *(column.name for column in views.QUERIES)])
    assert sorts is not None
    assert re.findall(r"`([^`]+)`", sorts[1]) == list(views.SORTS)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        if anchor:
            assert anchor in _anchors(linked), target


def _anchors(path: Path) -> set[str]:
    """Those that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
