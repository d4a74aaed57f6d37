"""Noticing that pgsluice is ready."""

import pytest

from loadtest.targets import is_ready


@pytest.mark.parametrize(
    ("log", "ready"),
    [
        ('{"event": "ready", "listen": ["127.0.0.1:1"]}\n', True),
        ('a warning\n{"event":"starting"}\n{"event":"ready"}\n', True),
        ('{"event": "rea', False),
        ('{"event": "ready"}', False),
        ('{"event": "not ready"}\n["ready"]\nready\n', False),
        ("", False),
    ],
)
def test_ready_is_one_complete_json_line(log: str, ready: bool) -> None:
    assert is_ready(log) is ready
