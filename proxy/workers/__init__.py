"""How many processes: one by itself, or several workers under a supervisor (docs/adr/0003-workers.md)."""

from proxy.config.schema import Settings


def run(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code.  Raises `ConfigError` and `StartupError`."""
    if settings.workers == 1:
        from proxy.app import run as run_one

        return run_one(settings)
    from proxy.workers.supervisor import run as run_several

    return run_several(settings)
