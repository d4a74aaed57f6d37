import pickle

import pytest

from proxy.errors import ConfigError, PgsluiceError, StartupError, shown


def test_a_config_error_is_setting_value_and_what_is_allowed() -> None:
    error = ConfigError("PGSLUICE_POOL_SIZE", "many", "a whole number from 1 to 10000")
    assert str(error) == "PGSLUICE_POOL_SIZE is 'many'; allowed: a whole number from 1 to 10000"


def test_without_a_value_only_what_is_allowed() -> None:
    assert str(ConfigError("primary", None, "not set")) == "primary: not set"


def test_it_is_one_line_whatever_the_value() -> None:
    text = str(ConfigError("listen\n", "a\nb\x1b[31m\u2028", "no\r\nline break"))
    assert text.isprintable()


def test_it_can_be_respelt() -> None:
    error = ConfigError("pool.size", 0, "more").respelt({"pool.size": "--pool-size"})
    assert str(error) == "--pool-size is 0; allowed: more"
    assert str(error.respelt({"workers": "--workers"})) == str(error)


def test_it_survives_the_way_from_another_process() -> None:
    error = ConfigError("listen", "127.0.0.1:1", "a free port")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("error", [ConfigError("a", 1, "b"), StartupError("c")])
def test_one_base_class(error: Exception) -> None:
    assert isinstance(error, PgsluiceError)


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://app:hunter2@db/shop",
        "postgresql://app:hunter2@more@db/shop",
        "x, postgres://app:hunter2@db,postgres://b:hunter2@c",
        "postgresql://db/shop?password=hunter2&sslmode=require",
        "host=db password=hunter2",
        "host=db password = 'hunter2 and more'",
        "postgresql://app:" + "x" * 200 + "hunter2@db/shop",
        ["postgresql://app:hunter2@db/shop"],
        {"password": "hunter2"},
    ],
)
def test_what_looks_like_a_password_is_not_shown(value: object) -> None:
    assert "hunter2" not in shown(value)
    assert "xxx" not in shown(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (20, "20"), (1.5, "1.5"), (float("nan"), "nan"), (["a", 1], "['a', 1]"), ("", "''")],
)
def test_values_are_shown_as_written(value: object, text: str) -> None:
    assert shown(value) == text


def test_huge_values_are_shortened() -> None:
    assert len(shown("x" * 10_000)) < 200
    assert len(shown(10**6000)) < 200
