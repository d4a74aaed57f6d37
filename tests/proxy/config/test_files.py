from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from proxy.config.files import check_files
from proxy.config.schema import AuthSettings, ClientSettings, ClientTls, Settings
from proxy.config.url import parse_url
from proxy.errors import ConfigError

URL = "postgresql://app:hunter2@db/shop"
PASSWORD = b"open sesame"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and key, another key, the key under a password, and what is none of these."""
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate, other = (authority.issue_cert("localhost") for _ in range(2))
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(directory / "both.pem")
    other.private_key_pem.write_to_path(directory / "other.pem")
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    (directory / "locked.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSWORD),
        )
    )
    (directory / "rubbish.pem").write_text("rubbish")
    return directory


def client_tls(directory: Path, certificate: str, key: str) -> Settings:
    tls = ClientSettings(tls=ClientTls.REQUIRE, tls_cert=directory / certificate, tls_key=directory / key)
    return Settings(primary=parse_url(URL), client=tls)


def server_tls(directory: Path, **names: str) -> Settings:
    parameters = "&".join(f"{name}={directory / value}" for name, value in names.items())
    return Settings(primary=parse_url(f"{URL}?sslmode=require&{parameters}"))


def refused(settings: Settings) -> str:
    with pytest.raises(ConfigError) as caught:
        check_files(settings)
    line = str(caught.value)
    assert line.isprintable()
    assert "hunter2" not in line
    return line


def test_without_files_there_is_nothing_to_check() -> None:
    settings = Settings(primary=parse_url(f"{URL}?sslrootcert=system"))
    check_files(settings)
    assert settings.primary.sslrootcert == "system"


def test_the_file_of_users(tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    settings = Settings(primary=parse_url(URL), auth=AuthSettings(file=users))
    assert refused(settings).startswith(f"auth.file is '{users}'; allowed: a file that can be read")
    users.write_text("app hunter2")
    assert refused(settings).startswith(f"{users}, line 1: ")
    users.write_text('"app" "hunter2"')
    check_files(settings)


def test_the_certificate_for_clients(directory: Path) -> None:
    check_files(client_tls(directory, "cert.pem", "key.pem"))
    missing = directory / "none.pem"
    assert refused(client_tls(directory, "none.pem", "key.pem")).startswith(f"client.tls_cert is '{missing}'")
    assert refused(client_tls(directory, "cert.pem", "none.pem")).startswith(f"client.tls_key is '{missing}'")


@pytest.mark.parametrize(
    ("certificate", "key"),
    [
        ("rubbish.pem", "key.pem"),
        ("cert.pem", "rubbish.pem"),
        ("cert.pem", "other.pem"),
        ("cert.pem", "locked.pem"),
    ],
)
def test_a_certificate_and_key_that_do_not_fit(certificate: str, key: str, directory: Path) -> None:
    line = refused(client_tls(directory, certificate, key))
    assert "client.tls_cert" in line
    assert "a PEM certificate and its private key" in line


def test_the_files_of_the_url(directory: Path) -> None:
    check_files(server_tls(directory, sslrootcert="ca.pem", sslcert="cert.pem", sslkey="key.pem"))
    check_files(server_tls(directory, sslcert="both.pem"))
    assert "none.pem" in refused(server_tls(directory, sslrootcert="none.pem"))
    assert "none.pem" in refused(server_tls(directory, sslcert="none.pem"))
    assert "none.pem" in refused(server_tls(directory, sslcert="cert.pem", sslkey="none.pem"))
    assert "holds no PEM certificate" in refused(server_tls(directory, sslrootcert="rubbish.pem"))
    assert "a PEM certificate" in refused(server_tls(directory, sslcert="cert.pem", sslkey="other.pem"))
    assert "a PEM certificate" in refused(server_tls(directory, sslcert="cert.pem"))


def test_a_key_under_a_password(directory: Path) -> None:
    url = f"{URL}?sslmode=require&sslcert={directory / 'cert.pem'}&sslkey={directory / 'locked.pem'}"
    check_files(Settings(primary=parse_url(f"{url}&sslpassword=open%20sesame")))
    assert "sslpassword" in refused(Settings(primary=parse_url(f"{url}&sslpassword=wrong")))
    assert "sslpassword" in refused(Settings(primary=parse_url(url)))
