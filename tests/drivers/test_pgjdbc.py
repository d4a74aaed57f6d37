"""The JDBC driver at its defaults: what the program java/Driver.java does, directly and through the proxy."""

import os
import subprocess
from pathlib import Path

from drivers.databases import CLIENTS, Database
from support.parts import locate

PROGRAM = Path(__file__).parent / "java" / "Driver.java"


def test_what_an_application_does(database: Database, accounts: str) -> None:
    java, jar = locate("java"), locate("pgjdbc")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    result = subprocess.run(
        [java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", jar, PROGRAM],
        env=variables
        | {
            "JDBC_URL": f"jdbc:postgresql://{database.host}:{database.port}/{database.name}",
            "JDBC_USER": database.user,
            "JDBC_PASSWORD": database.password,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert result.stderr == ""
    assert result.returncode == 0
    assert result.stdout.split() == [
        "preparedStatements", "transactions", "errors", "batches", "rowsInPortions", "copies",
        "severalStatements", "timeouts", "ddl",
    ]  # fmt: skip
    # (of twelve turns every second is rolled back)
    assert database.psql("SELECT count(*), sum(balance) FROM accounts") == f"10|{1000 + 6 * CLIENTS}"
