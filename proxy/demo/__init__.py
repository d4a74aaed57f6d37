"""`pgsluice demo`: a PostgreSQL, the proxy before it, a workload, and what was measured. Nothing stays
behind.
"""

from proxy.errors import StartupError


def run(seconds: float | None = None) -> int:
    """The whole demo in this terminal; returns the exit status.

    `seconds` is how long the workload runs; then it ends by itself. None: the workload runs for a while, the
    servers go on until Ctrl-C. StartupError when a package of the extra `demo` is missing or a server won't
    start.
    """
    try:
        from proxy.demo.play import play
    except ModuleNotFoundError as error:
        raise StartupError(f"the demo needs the package {error.name}: pip install 'pgsluice[demo]'") from None
    return play(seconds)
