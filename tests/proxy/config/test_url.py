import contextlib
import os
import pickle
import pwd
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.url import Secret, ServerUrl, SslMode, SslNegotiation, parse_url
from proxy.errors import ConfigError

USER = pwd.getpwuid(os.geteuid()).pw_name


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_url(text)
    assert caught.value.setting == "primary"
    assert caught.value.value is None
    line = str(caught.value)
    assert line.isprintable()
    return line


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_everything_given(scheme: str) -> None:
    url = parse_url(f"{scheme}://app:secret@db.example.com:5433/shop?sslmode=require&application_name=x")
    assert url == ServerUrl(
        host="db.example.com",
        port=5433,
        user="app",
        password=Secret("secret"),
        database="shop",
        sslmode=SslMode.REQUIRE,
        application_name="x",
    )


def test_defaults() -> None:
    url = parse_url("postgresql://db")
    assert (url.host, url.port, url.user, url.database) == ("db", 5432, USER, USER)
    assert url.password is None
    assert url.sslmode is SslMode.PREFER
    assert url.sslnegotiation is SslNegotiation.POSTGRES
    assert url.connect_timeout is None


def test_the_database_is_the_users_by_default() -> None:
    assert parse_url("postgresql://app@db").database == "app"
    assert parse_url("postgresql://app@db/").database == "app"


@pytest.mark.parametrize(
    "text", ["postgresql://", "postgresql:///shop", "postgresql://app@/shop", "postgresql://:5433"]
)
@pytest.mark.parametrize("there", [True, False])
def test_without_a_host_it_is_the_socket_or_this_machine(
    text: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.isdir", lambda path: there)
    assert parse_url(text).host == ("/var/run/postgresql" if there else "localhost")


def test_a_user_without_a_name_must_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 4_000_000_000)
    assert "names no user" in refused("postgresql://db/shop")
    assert parse_url("postgresql://app@db/shop").user == "app"


def test_percent_encoding_is_decoded_and_a_plus_is_a_plus() -> None:
    url = parse_url("postgresql://us%40er:p%2Fa%3As%25+s@db/sh%C3%B6p?application_name=a+b%20c")
    assert url.user == "us@er"
    assert url.password == Secret("p/a:s%+s")
    assert url.database == "shöp"
    assert url.application_name == "a+b c"


def test_a_colon_in_the_password_needs_no_encoding() -> None:
    assert parse_url("postgresql://app:a:b?c#d@db").password == Secret("a:b?c#d")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("postgresql://[::1]:5433/x", "::1", 5433),
        ("postgresql://[2001:db8::1]/x", "2001:db8::1", 5432),
        ("postgresql://[::1]", "::1", 5432),
        ("postgresql://127.0.0.1:/x", "127.0.0.1", 5432),
    ],
)
def test_ip_addresses(text: str, host: str, port: int) -> None:
    url = parse_url(text)
    assert (url.host, url.port) == (host, port)
    assert url.address == (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    assert not url.is_unix_socket


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://%2Frun%2Fpg:5433/x",
        "postgresql:///x?host=/run/pg&port=5433",
        "postgresql://ignored:1/x?host=/run/pg/&port=5433",
    ],
)
def test_a_socket_directory(text: str) -> None:
    url = parse_url(text)
    assert url.is_unix_socket
    assert url.host == "/run/pg"
    assert url.socket_path == url.address == "/run/pg/.s.PGSQL.5433"


def test_parameters_may_stand_behind_the_question_mark() -> None:
    url = parse_url("postgresql://a:b@c:1/d?user=app&password=s%26p&host=db&port=5433&dbname=shop")
    assert (url.user, url.password, url.host, url.port, url.database) == (
        "app",
        Secret("s&p"),
        "db",
        5433,
        "shop",
    )


def test_the_parameters_of_tls() -> None:
    url = parse_url(
        "postgresql://db/x?sslmode=verify-ca&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem&sslpassword=p"
        "&sslnegotiation=direct"
    )
    assert url.sslmode is SslMode.VERIFY_CA
    assert (url.sslrootcert, url.sslcert, url.sslkey) == ("/ca.pem", "/c.pem", "/k.pem")
    assert url.sslpassword == Secret("p")
    assert url.sslnegotiation is SslNegotiation.DIRECT


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
def test_every_sslmode(mode: str) -> None:
    assert parse_url(f"postgresql://db/x?sslmode={mode}").sslmode == mode


def test_the_jdbc_spelling_of_tls() -> None:
    assert parse_url("postgresql://db/x?ssl=true").sslmode is SslMode.REQUIRE
    assert "'ssl'" in refused("postgresql://db/x?ssl=false")


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_direct_tls_needs_a_mode_that_demands_tls(mode: str) -> None:
    assert "sslmode require" in refused(f"postgresql://db/x?sslmode={mode}&sslnegotiation=direct")


def test_the_systems_certificates_mean_full_verification() -> None:
    assert parse_url("postgresql://db/x?sslrootcert=system").sslmode is SslMode.VERIFY_FULL
    assert "verify-full" in refused("postgresql://db/x?sslrootcert=system&sslmode=require")


def test_a_key_needs_a_certificate() -> None:
    assert "sslcert" in refused("postgresql://db/x?sslkey=/k.pem")


@pytest.mark.parametrize(("text", "seconds"), [("10", 10.0), ("0", None), ("-1", None), ("", None)])
def test_connect_timeout(text: str, seconds: float | None) -> None:
    assert parse_url(f"postgresql://db/x?connect_timeout={text}").connect_timeout == seconds


def test_options() -> None:
    assert parse_url("postgresql://db/x?options=-c%20geqo%3Doff").options == "-c geqo=off"


def test_parameters_that_ask_for_what_is_done_anyway_are_taken() -> None:
    url = parse_url("postgresql://db/x?gssencmode=disable&channel_binding=prefer&target_session_attrs=any")
    assert url.parameters == {
        "gssencmode": "disable",
        "channel_binding": "prefer",
        "target_session_attrs": "any",
    }
    assert "channel_binding is 'require'" in refused("postgresql://db/x?channel_binding=require")
    assert "target_session_attrs" in refused("postgresql://db/x?target_session_attrs=read-write")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "a URL like postgresql://"),
        ("db.example.com", "a URL like postgresql://"),
        ("host=db dbname=x", "a URL like postgresql://"),
        ("mysql://db/x", "a URL like postgresql://"),
        ("postgresql+psycopg://db/x", "write postgresql:// alone"),
        (" postgresql://db/x", "a URL like postgresql://"),
        ("postgresql://db/x\n", "percent-encode"),
        ("postgresql://db/x\x00", "percent-encode"),
        ("postgresql://db1,db2/x", "one host only"),
        ("postgresql://db1:1,db2:2/x", "one host only"),
        ("postgresql:///x?host=db1,db2", "one host only"),
        ("postgresql://db/x?port=1,2", "one host only"),
        ("postgresql://db:0/x", "from 1 to 65535"),
        ("postgresql://db:65536/x", "from 1 to 65535"),
        ("postgresql://db:5432x/x", "from 1 to 65535"),
        ("postgresql://::1/x", "brackets"),
        ("postgresql://[::1/x", "[ADDRESS]"),
        ("postgresql://[::1]5432/x", "[ADDRESS]"),
        ("postgresql://d b/x", "no host name has"),
        ("postgresql://db/%", "%25"),
        ("postgresql://db/%zz", "%25"),
        ("postgresql://db/%00", "zero byte"),
        ("postgresql://db/%ff", "UTF-8"),
        ("postgresql://db/x?sslmode", "name=value"),
        ("postgresql://db/x?sslmode=a=b", "name=value"),
        ("postgresql://db/x?sslmode=full", "sslmode is 'full'; allowed: disable, allow, prefer"),
        ("postgresql://db/x?sslmode=", "sslmode is ''"),
        ("postgresql://db/x?sslnegotiation=tls", "allowed: postgres, direct"),
        ("postgresql://db/x?connect_timeout=soon", "connect_timeout is 'soon'"),
        ("postgresql://db/x?ssl_mode=require", "'ssl_mode' is not supported; did you mean sslmode?"),
        ("postgresql://db/x?keepalives=1", "'keepalives' is not supported"),
        ("postgresql://%2F" + "a" * 120 + "/x", "longer than 107"),
    ],
)
def test_what_is_wrong_is_said(text: str, wanted: str) -> None:
    assert wanted in refused(text)


def test_the_password_does_not_print() -> None:
    url = parse_url("postgresql://app:hunter2@db/x?sslpassword=hunter3&sslcert=/c&sslkey=/k")
    for text in (str(url), repr(url), f"{url}", str(url.password), repr(url.password), f"{url.password}"):
        assert "hunter" not in text
    assert url.password is not None
    assert url.password.reveal() == "hunter2"
    assert str(url) == ("postgresql://app:***@db:5432/x?sslmode=prefer&sslcert=/c&sslkey=/k&sslpassword=***")


def test_what_prints_can_be_read_again() -> None:
    for text in (
        "postgresql://a%40b@[::1]:1/d%2Fe?options=-c%20a%3Db&connect_timeout=3&gssencmode=disable",
        "postgresql://a@%2Frun%2Fpg/d?sslmode=require&sslnegotiation=direct&sslrootcert=/x%20y",
    ):
        assert parse_url(str(parse_url(text))) == parse_url(text)


def test_secrets_compare_and_pickle() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert hash(Secret("a")) == hash(Secret("a"))
    url = parse_url("postgresql://app:secret@db/x")
    assert pickle.loads(pickle.dumps(url)) == url
    assert hash(url) == hash(parse_url("postgresql://app:secret@db/x"))


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(names, names, names)
def test_whatever_is_percent_encoded_arrives(user: str, password: str, database: str) -> None:
    encoded = (quote(part, safe="") for part in (user, password, database))
    url = parse_url("postgresql://{}:{}@db/{}".format(*encoded))
    assert (url.user, url.password, url.database) == (user, Secret(password), database)


@given(st.lists(st.sampled_from([*string.punctuation, "a", "1", "%4", "é"]), min_size=1).map("".join))
def test_a_password_that_is_not_encoded_is_never_printed(middle: str) -> None:
    password = f"QQQQ{middle}WWWW"
    try:
        url = parse_url(f"postgresql://app:{password}@db/x")
    except ConfigError as error:
        printed = str(error)
    else:
        printed = f"{url}{url!r}"
        assert url.host == "db"
    assert "QQQQ" not in printed
    assert "WWWW" not in printed


@given(st.text())
def test_any_text_is_a_url_or_a_config_error(text: str) -> None:
    said = ""
    with contextlib.suppress(ConfigError):
        said = str(parse_url("postgresql://" + text))
    assert said.startswith("postgresql://") or not said
