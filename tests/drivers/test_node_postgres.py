"""node-postgres at its defaults: what the program node/driver.mjs does, directly and through the proxy."""

import json
import os
import subprocess
from pathlib import Path

from drivers.databases import Database
from support.parts import locate

PROGRAM = Path(__file__).parent / "node" / "driver.mjs"


def test_what_an_application_does(database: Database, accounts: str) -> None:
    modules = locate("node-postgres")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    result = subprocess.run(
        ["node", "--no-deprecation", PROGRAM],
        env=variables | {"MODULES": str(modules), "DATABASE_URL": database.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert result.stderr == ""
    assert result.returncode == 0
    assert len(json.loads(result.stdout)) == 12
    assert database.psql("SELECT sum(balance) FROM accounts") == "1032"
