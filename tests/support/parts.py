"""Where the parts are that `support.obtain` found or obtained, and the skip (in CI: the failure) without
them.
"""

import json
import os
from pathlib import Path
from typing import NoReturn

import pytest
from support import obtain

SYSTEM_POSTGRES = "postgresql (system)"
WHEEL_POSTGRES = "postgresql (wheel)"


def locate(name: str) -> Path:
    """The path of a part named as in `support.obtain.OBTAIN`, e.g. `promtool`, `pgbouncer`, `pgjdbc` (the
    jar), `node-postgres` (the node_modules directory). Skips the calling test without it; fails it when CI is
    set.
    """
    if name not in obtain.OBTAIN:
        raise KeyError(f"no part is named {name}: {', '.join(obtain.OBTAIN)}")
    part = _parts().get(name)
    if part is not None and "path" in part:
        path = Path(part["path"])
        if path.exists():
            return path
    reason = part["reason"] if part and "reason" in part else "not obtained yet: run tests/support/obtain.py"
    return refuse(f"{name}: {reason}")


def refuse(reason: str) -> NoReturn:
    """Skip the calling test for want of something; in CI everything has to be there."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def environment(program: Path) -> dict[str, str]:
    """This process's environment, with an unpacked program's libraries, without libpq's variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    if obtain.UNPACKED in program.parents:
        environment["LD_LIBRARY_PATH"] = obtain.library_path()
    return environment


def _parts() -> dict[str, dict[str, str]]:
    try:
        parts: dict[str, dict[str, str]] = json.loads(obtain.PARTS.read_text())
    except (OSError, ValueError):
        return {}
    return parts
