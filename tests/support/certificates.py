"""Certificates made for one test run: an authority, server certificates, client certificates."""

from pathlib import Path

import trustme

from proxy.demo.embedded import ServerCertificate


class CertificateAuthority:
    """An authority of its own; two of them do not trust each other."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    @property
    def certificate(self) -> bytes:
        """The authority's certificate, PEM: for sslrootcert."""
        return self._authority.cert_pem.bytes()

    def server(self, *names: str, client_certificates: bool = False) -> ServerCertificate:
        """A certificate for these names (default: localhost and 127.0.0.1), for `support.postgres`."""
        leaf = self._authority.issue_cert(*(names or ("localhost", "127.0.0.1")))
        return ServerCertificate(
            b"".join(blob.bytes() for blob in leaf.cert_chain_pems),
            leaf.private_key_pem.bytes(),
            self.certificate if client_certificates else None,
        )

    def client(self, user: str) -> tuple[bytes, bytes]:
        """Certificate and key, PEM, with the user's name as common name."""
        leaf = self._authority.issue_cert(f"{user}@example.test", common_name=user)
        return b"".join(blob.bytes() for blob in leaf.cert_chain_pems), leaf.private_key_pem.bytes()


def write_private(path: Path, pem: bytes) -> Path:
    """A file only its owner may read, as libpq wants keys."""
    path.touch(0o600)
    path.chmod(0o600)
    path.write_bytes(pem)
    return path
