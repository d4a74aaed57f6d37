"""Settings from flags, the environment and a TOML file, in this order; every mistake is one ConfigError.

A setting that nobody knows is a mistake too, in the file and among the ``PGSLUICE_`` variables: one that is
misspelt must not be a default in silence.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from proxy.config.schema import Setting, Settings, TcpAddress, all_settings
from proxy.errors import ConfigError

PREFIX = "PGSLUICE_"
CONFIG_VARIABLE = "PGSLUICE_CONFIG"

# What Kubernetes puts into every pod's environment for a Service named pgsluice or pgsluice-something.
_SERVICE_LINK = re.compile(
    r"PGSLUICE_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")

SETTINGS: dict[str, Setting] = {setting.name: setting for setting in all_settings()}
_SECTIONS = {setting.path[0] for setting in SETTINGS.values() if len(setting.path) == 2}
_SHORT = {"auth": "auth.mode"}
"""Sections that may be written as one value."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it came, and the setting's name as the user wrote it.

    typed: whether the value has a type (TOML), or is the text of a flag or variable.
    """

    spelling: str
    value: object
    typed: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """origins: for each setting given, how the user wrote its name; what is missing there has its default."""

    settings: Settings
    origins: Mapping[str, str]


def load_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | str | None = None
) -> Settings:
    """The settings in effect.

    flags: by setting name (``pool.size``); a value of None is a flag not given; text as typed will do.
    file:  the TOML file; None = the one that PGSLUICE_CONFIG names, if it does.

    Raises ConfigError.
    """
    return load(flags, environ, file).settings


def load(flags: Mapping[str, object], environ: Mapping[str, str], file: Path | str | None = None) -> Loaded:
    """As load_settings(), and where each value came from."""
    given = _merged(flags, environ, file)
    if "primary" not in given:
        raise ConfigError(
            "DATABASE_URL", None, f"not set; needed is {SETTINGS['primary'].allowed} (or --primary)"
        )
    tree: dict[str, object] = {}
    for name, one in given.items():
        section, _, key = name.rpartition(".")
        branch = tree.setdefault(section, {}) if section else tree
        assert isinstance(branch, dict)
        branch[key] = _typed(SETTINGS[name], one)
    try:
        settings = Settings.model_validate(tree)
    except ConfigError as error:
        raise error.respelt(_spellings(given)) from None
    except ValidationError as error:
        raise _explained(error, given) from None
    return Loaded(settings, _spellings(given))


def load_admin(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | str | None = None
) -> TcpAddress | None:
    """Only the admin address, for a health check: the other settings are none of its business.

    Raises ConfigError.
    """
    given = _merged(flags, environ, file)
    placeholder = {"primary": "postgresql://nobody:nothing@localhost/nothing", "admin_public": True}
    admin = {"admin": given["admin"].value} if "admin" in given else {}
    try:
        return Settings.model_validate({**placeholder, **admin}).admin
    except ConfigError as error:
        raise error.respelt(_spellings(given)) from None
    except ValidationError as error:
        raise _explained(error, given) from None


def _merged(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | str | None
) -> dict[str, Given]:
    spelling = "--config"
    if file is None and CONFIG_VARIABLE in environ:
        spelling, file = CONFIG_VARIABLE, environ[CONFIG_VARIABLE]
    from_file = {} if file is None else _from_file(spelling, file)
    return {**from_file, **_from_environment(environ), **_from_flags(flags)}


def _from_flags(flags: Mapping[str, object]) -> dict[str, Given]:
    given = {}
    for name, value in flags.items():
        if name not in SETTINGS:
            raise ConfigError(name, None, "no such setting" + _suggestion(name, SETTINGS))
        if value is not None:
            given[name] = Given("--" + name.replace(".", "-").replace("_", "-"), value)
    return given


# -- environment ---------------------------------------------------------------------------------


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    given: dict[str, Given] = {}
    used = {CONFIG_VARIABLE}
    for setting in SETTINGS.values():
        found = [one for name in setting.environment if (one := _variable(setting, name, environ))]
        used.update(setting.environment)
        if setting.secret:
            used.update(f"{name}_FILE" for name in setting.environment)
        # PGSLUICE_PRIMARY may stand beside DATABASE_URL, which is often the application's own, inherited.
        if len(found) > 1 and setting.name != "primary":
            raise ConfigError(
                found[1].spelling, None, f"given as {found[0].spelling} too; allowed: one of them"
            )
        if found:
            given[setting.name] = found[0]
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in used and not _is_service_link(name, environ[name]):
            # Its value is not shown: it may be a misspelt secret.
            raise ConfigError(name, None, "no such setting" + _suggestion(name, used))
    return given


def _variable(setting: Setting, name: str, environ: Mapping[str, str]) -> Given | None:
    file_variable = f"{name}_FILE"
    if not setting.secret or file_variable not in environ:
        return Given(name, environ[name]) if name in environ else None
    if name in environ:
        raise ConfigError(file_variable, None, f"given together with {name}; allowed: one of them")
    return Given(file_variable, _secret_in(file_variable, environ[file_variable]))


def _secret_in(variable: str, path: str) -> str:
    text = _read(variable, path)
    for ending in ("\r\n", "\n"):
        if text.endswith(ending):
            return text.removesuffix(ending)
    return text


def _is_service_link(name: str, value: str) -> bool:
    if _SERVICE_LINK.fullmatch(name) is None:
        return False
    # PGSLUICE_PORT=6432 is somebody's mistake; Kubernetes writes PGSLUICE_PORT=tcp://10.0.0.1:6432.
    return name != "PGSLUICE_PORT" or "://" in value


# -- file ----------------------------------------------------------------------------------------


def _from_file(spelling: str, path: Path | str) -> dict[str, Given]:
    text = _read(spelling, path)
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(*_bad_toml(str(path), str(error))) from None
    given: dict[str, Given] = {}
    for name, written, value in _leaves(tree, str(path)):
        here = f"{written} in {path}"
        if name in given:
            raise ConfigError(
                here, None, f"given as {given[name].spelling.removesuffix(f' in {path}')} too; allowed: one"
            )
        given[name] = Given(here, value, typed=True)
    return given


def _leaves(tree: dict[str, object], path: str) -> Iterable[tuple[str, str, object]]:
    flat = {setting.flat: setting.name for setting in SETTINGS.values()}
    for key, value in tree.items():
        if key in _SECTIONS and isinstance(value, dict):
            for inner, inner_value in value.items():
                name = f"{key}.{inner}"
                if name not in SETTINGS:
                    names = [other for other in SETTINGS if other.startswith(f"{key}.")]
                    raise ConfigError(f"{name} in {path}", None, "no such setting" + _suggestion(name, names))
                yield name, name, inner_value
        elif key in _SHORT:
            yield _SHORT[key], key, value
        elif key in _SECTIONS:
            raise ConfigError(f"{key} in {path}", value, f"a section, [{key}]")
        elif key in flat:
            yield flat[key], key, value
        else:
            names = [*SETTINGS, *flat, *_SECTIONS]
            raise ConfigError(f"{key} in {path}", None, "no such setting" + _suggestion(key, names))


def _bad_toml(path: str, message: str) -> tuple[str, None, str]:
    reason, _, place = message.rpartition(" (at ")
    place = place.removesuffix(")")
    return f"{path}, {place}" if reason else path, None, f"not TOML: {reason or message}"


def _read(setting: str, path: Path | str) -> str:
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(setting, str(path), f"a file that can be read ({error.strerror})") from None
    except ValueError:
        raise ConfigError(setting, str(path), "the path of a file") from None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(setting, str(path), f"a file in UTF-8 (line {line} is not)") from None


# -- values and errors ---------------------------------------------------------------------------


def _typed(setting: Setting, given: Given) -> object:
    """Text as the setting's type; what does not fit stays as it is, for the schema to refuse."""
    value = given.value
    if given.typed or not isinstance(value, str):
        return value
    if setting.kind is bool:
        return True if value.lower() in _TRUE else False if value.lower() in _FALSE else value
    if setting.kind is int and re.fullmatch(r"[+-]?[0-9]{1,30}", value):
        return int(value)
    if setting.kind is float and re.fullmatch(r"[+-]?([0-9]{1,30}(\.[0-9]*)?|\.[0-9]+)", value):
        return float(value)
    return value


def _spellings(given: Mapping[str, Given]) -> dict[str, str]:
    return {name: one.spelling for name, one in given.items()}


def _explained(error: ValidationError, given: Mapping[str, Given]) -> ConfigError:
    location = error.errors(include_url=False, include_input=False, include_context=False)[0]["loc"]
    name = next(name for name in _prefixes(location) if name in SETTINGS)
    setting, one = SETTINGS[name], given[name]
    return ConfigError(one.spelling, None if setting.secret else one.value, setting.allowed)


def _prefixes(location: tuple[int | str, ...]) -> Iterable[str]:
    for length in (2, 1):
        yield ".".join(str(part) for part in location[:length])


def _suggestion(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if not close:
        close = [other for other in known if other.casefold() == name.casefold()]
    if close:
        return f"; did you mean {close[0]}?"
    if len(known) <= 8:
        return f"; allowed: {', '.join(known)}"
    return "; the documentation has a table of all settings"
