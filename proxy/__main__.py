"""`python -m proxy`, and the program `pgsluice`: imports the command line where Ctrl-C is expected."""

import sys

INTERRUPTED = 130


def main() -> int:
    """Exit status of the command; 130 when Ctrl-C comes before there is anything to end."""
    try:
        from proxy.cli import main as command
    except KeyboardInterrupt:
        return INTERRUPTED
    return command()


if __name__ == "__main__":
    sys.exit(main())
