"""`pgsluice demo`: a PostgreSQL, the proxy before it, a workload, and what was measured. Nothing stays
behind.
"""

from proxy.errors import StartupError

INTERRUPTED = 130
"""The exit status of a program that SIGINT ended, as shells count it."""


def run(seconds: float | None = None) -> int:
    """The whole demo in this terminal; returns the exit status.

    `seconds` is how long the workload runs; then it ends by itself. None: the workload runs for a while, the
    servers go on until Ctrl-C. StartupError when a package of the extra `demo` is missing or a server won't
    start.
    """
    try:
        # Inside, as the drivers' import takes long enough for a Ctrl-C to fall into it.
        from proxy.demo.play import play

        return play(seconds)
    except KeyboardInterrupt:
        return INTERRUPTED
    except ModuleNotFoundError as error:
        raise StartupError(f"the demo needs the package {error.name}: pip install 'pgsluice[demo]'") from None
