"""The command ``pgsluice``. Whatever is wrong with its input: one line on standard error, exit code 2."""

import http.client
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from proxy import build
from proxy.config.files import check_files
from proxy.config.load import SETTINGS, Loaded, load, load_admin
from proxy.config.schema import PoolMode, Settings, TcpAddress, toml
from proxy.errors import ConfigError, PgsluiceError, StartupError, one_line

WRONG_USE = 2

app = typer.Typer(
    name="pgsluice",
    # Plain help: the brackets of [::1] are no markup, and pipes and terminals of any width get the same text.
    rich_markup_mode=None,
    # A traceback that prints local variables would print passwords.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Config = Annotated[
    str | None, typer.Option("--config", metavar="FILE.toml", help="Settings file. [env: PGSLUICE_CONFIG]")
]
Listen = Annotated[
    list[str] | None,
    typer.Option(
        "--listen",
        metavar="HOST:PORT|unix:PATH",
        help="Where clients connect; may be repeated; port 0 picks a free one. [env: PGSLUICE_LISTEN] "
        "[default: 127.0.0.1:6432]",
    ),
]
Admin = Annotated[
    str | None,
    typer.Option(
        "--admin",
        metavar="HOST:PORT|off",
        help="Where metrics and health are served. [env: PGSLUICE_ADMIN] [default: 127.0.0.1:9187]",
    ),
]
Primary = Annotated[
    str | None,
    typer.Option(
        "--primary",
        metavar="URL",
        help="The PostgreSQL server. Others on the machine can read command lines: prefer the environment "
        "when it has a password. [env: DATABASE_URL, PGSLUICE_PRIMARY; in a file: DATABASE_URL_FILE]",
    ),
]
PoolSize = Annotated[
    str | None,
    typer.Option(
        "--pool-size",
        metavar="N",
        help="Most server connections for each user and database. [env: PGSLUICE_POOL_SIZE] [default: 20]",
    ),
]
PoolModeName = Annotated[
    str | None,
    typer.Option(
        "--pool-mode",
        metavar="transaction|session",
        help="How long a client keeps a server connection. [env: PGSLUICE_POOL_MODE] [default: transaction]",
        autocompletion=lambda: list(PoolMode),
    ),
]
Workers = Annotated[
    str | None,
    typer.Option("--workers", metavar="N", help="Processes. [env: PGSLUICE_WORKERS] [default: 1]"),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; arguments: those of the process unless given."""
    try:
        code = app(args=arguments, prog_name="pgsluice", standalone_mode=False)
    except PgsluiceError as error:
        return _refuse(f"pgsluice: {error}")
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        # Typer has its own copy of click or uses the installed one; this is what both have in common.
        explain = getattr(error, "format_message", None)
        if explain is None:
            raise
        context = getattr(error, "ctx", None)
        return _refuse(f"{context.command_path if context is not None else 'pgsluice'}: {explain()}")
    return code if isinstance(code, int) else 0


def _refuse(line: str) -> int:
    print(one_line(line), file=sys.stderr)
    return WRONG_USE


@app.callback(invoke_without_command=True)
def pgsluice(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="The same as pgsluice version.")] = False,
) -> None:
    """A PostgreSQL proxy: pools server connections, and tells what every query costs.

    Put it between an application and its database; the application only changes its DATABASE_URL.

    \b
    Try it without a database of your own:
        pgsluice demo
    Before a real one:
        export DATABASE_URL=postgresql://app:secret@db.example.com/shop
        pgsluice run
        psql postgresql://app:secret@127.0.0.1:6432/shop
    See the slowest queries, and everything as Prometheus metrics:
        curl http://127.0.0.1:9187/api/queries
        curl http://127.0.0.1:9187/metrics

    Each command explains itself: pgsluice run --help.
    """
    if version:
        typer.echo(_version())
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(short_help="Run the proxy.")
def run(
    config: Config = None,
    listen: Listen = None,
    admin: Admin = None,
    primary: Primary = None,
    pool_size: PoolSize = None,
    pool_mode: PoolModeName = None,
    workers: Workers = None,
) -> int:
    """Run the proxy until SIGTERM or Ctrl-C.

    A flag wins over the environment, the environment over the file, the file over the default.

    \b
    The server from the environment, everything else as it comes:
        DATABASE_URL=postgresql://app:secret@db/shop pgsluice run
    On all addresses, and a socket that psql -h /run/pgsluice finds:
        pgsluice run --listen 0.0.0.0:6432 --listen unix:/run/pgsluice/.s.PGSQL.5432
    The server's password from a mounted secret, TLS verified:
        DATABASE_URL_FILE=/run/secrets/database_url pgsluice run --pool-size 40
    With a settings file:
        pgsluice run --config pgsluice.toml

    \b
    pgsluice.toml:
        listen = ["0.0.0.0:6432"]
        primary = "postgresql://app:secret@db/shop?sslmode=verify-full&sslrootcert=/etc/ssl/db.pem"
        [pool]
        size = 40
        [client]
        tls = "require"
        tls_cert = "/etc/ssl/proxy.pem"
        tls_key = "/etc/ssl/proxy.key"

    Every setting has a variable, [pool] size PGSLUICE_POOL__SIZE; pgsluice check-config lists them all.
    """
    loaded = _load(config, listen, admin, primary, pool_size, pool_mode, workers)
    from proxy.workers import run as run_proxy

    with _in_the_users_words(loaded.origins):
        return run_proxy(loaded.settings)


@app.command(short_help="Check the settings and print those in effect.")
def check_config(
    config: Config = None,
    listen: Listen = None,
    admin: Admin = None,
    primary: Primary = None,
    pool_size: PoolSize = None,
    pool_mode: PoolModeName = None,
    workers: Workers = None,
) -> None:
    """Check the settings and the files they name, and print those in effect.

    Takes the same options and environment as run, starts nothing, and hides passwords. Exit code 0 when run
    would accept them, else 2 and one line that says what is wrong.

    \b
    Before a restart:
        pgsluice check-config --config pgsluice.toml && systemctl restart pgsluice
    """
    loaded = _load(config, listen, admin, primary, pool_size, pool_mode, workers)
    typer.echo("\n".join(_effective(loaded)))


@app.command(short_help="See it work, without a database.")
def demo(
    seconds: Annotated[
        str | None, typer.Option("--seconds", metavar="N", help="Stop after so long; else at Ctrl-C.")
    ] = None,
) -> int:
    """Start a PostgreSQL, the proxy before it and a small workload; end with a table of the slowest queries.

    Needs no database and leaves nothing behind. Ends with Ctrl-C, or after --seconds.

    \b
    A quick look:
        pgsluice demo --seconds 20
    """
    duration = None if seconds is None else _seconds("--seconds", seconds)
    try:
        from proxy.demo import run as run_demo
    except ModuleNotFoundError as error:
        raise StartupError(f"the demo needs the package {error.name}: pip install 'pgsluice[demo]'") from None
    return run_demo(duration)


@app.command(short_help="Print the version, and compiled or pure.")
def version() -> None:
    """Print the version, whether the hot modules are compiled or pure Python, and what they run on."""
    typer.echo(_version())


@app.command(short_help="Ask a running proxy whether it is ready.")
def healthcheck(
    admin: Admin = None,
    config: Config = None,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="SECONDS", help="How long to wait for the answer.")
    ] = "3",
) -> int:
    """Ask a running proxy whether it is ready: one line, exit code 0 when it is and 1 when not.

    Finds the admin address as run does: --admin, PGSLUICE_ADMIN, the file, 127.0.0.1:9187.

    \b
    In a Dockerfile:
        HEALTHCHECK CMD ["pgsluice", "healthcheck"]
    """
    try:
        address = load_admin({"admin": admin}, os.environ, config)
        reason = "admin is off" if address is None else _not_ready(address, _seconds("--timeout", timeout))
    except ConfigError as error:
        reason = str(error)
    typer.echo("ready" if reason is None else one_line(f"not ready: {reason}"))
    return 0 if reason is None else 1


def _seconds(flag: str, text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,6})?", text) or not 0 < float(text) <= 86_400:
        raise ConfigError(flag, text, "a number of seconds, more than 0 and at most 86400")
    return float(text)


def _load(
    config: str | None,
    listen: list[str] | None,
    admin: str | None,
    primary: str | None,
    pool_size: str | None,
    pool_mode: str | None,
    workers: str | None,
) -> Loaded:
    flags = {
        "listen": listen or None,
        "admin": admin,
        "primary": primary,
        "pool.size": pool_size,
        "pool.mode": pool_mode,
        "workers": workers,
    }
    loaded = load(flags, os.environ, config)
    with _in_the_users_words(loaded.origins):
        check_files(loaded.settings)
    return loaded


@contextmanager
def _in_the_users_words(origins: Mapping[str, str]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise error.respelt(origins) from error.__cause__


def _effective(loaded: Loaded) -> Iterator[str]:
    """Each setting as the file would have it, and where it comes from."""
    if loaded.settings.trusts_clients:
        yield "# Clients log in without a password."
    for name, setting in SETTINGS.items():
        value = _value(loaded.settings, setting.path)
        origin = loaded.origins.get(name, f"default, {setting.environment[0]} sets it")
        if name == "admin" and value is None:
            value = "off"
        if value is None:
            yield f"# {name} is not set  # {origin}"
        else:
            yield f"{name} = {toml(value)}  # {origin}"


def _value(settings: Settings, path: tuple[str, ...]) -> object:
    value: object = settings
    for name in path:
        value = getattr(value, name)
    return value


def _version() -> str:
    try:
        uvloop = importlib.metadata.version("uvloop")
    except importlib.metadata.PackageNotFoundError:
        uvloop = "missing"
    return f"pgsluice {build.VERSION} ({build.form()}), Python {platform.python_version()}, uvloop {uvloop}"


def _not_ready(address: TcpAddress, timeout: float) -> str | None:
    """None when ready; else the reason."""
    # An address that stands for all of them is none to connect to.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    connection = http.client.HTTPConnection(host, address.port, timeout=timeout)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read(1000).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer at {address} ({getattr(error, 'strerror', None) or error or type(error).__name__})"
    finally:
        connection.close()
    return None if response.status == 200 else body or f"{address} answers {response.status}"


if __name__ == "__main__":
    raise SystemExit(main())
