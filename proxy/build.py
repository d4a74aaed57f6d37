"""Which build this is: its version, and whether the hot modules run compiled or as plain Python."""

import importlib.util
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Literal

VERSION = "0.1.0"

HOT_MODULES = (
    "protocol.framing",
    "protocol.pipeline",
    "protocol.messages.rewrite",
    "proxy.net.poller",
    "proxy.net.link",
    "proxy.observe.histogram",
    "proxy.observe.record",
    "proxy.observe.statistics",
    "proxy.query.fingerprint",
    "proxy.query.statements",
    "proxy.server.assignment",
    "proxy.server.prepared",
    "proxy.server.connection",
    "proxy.server.pool",
    "proxy.client.prepared",
    "proxy.client.batch",
    "proxy.client.session",
)
"""Those pyproject.toml lists as ext-modules."""

Form = Literal["compiled", "pure", "mixed"]


def form() -> Form:
    """compiled: all hot modules are extensions; pure: none; mixed: some, as after an interrupted build."""
    files = [file for name in HOT_MODULES if (file := _file(name))]
    extensions = [file for file in files if file.endswith(tuple(EXTENSION_SUFFIXES))]
    if not extensions:
        return "pure"
    return "compiled" if len(extensions) == len(files) else "mixed"


def _file(name: str) -> str | None:
    module = sys.modules.get(name)
    if module is not None:
        return getattr(module, "__file__", None)
    # Not imported: the spec says what would be, and a version must print even when a module is broken.
    try:
        spec = importlib.util.find_spec(name)
    except ImportError:
        return None
    return spec.origin if spec is not None else None
