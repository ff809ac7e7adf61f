"""The certificate of the gRPC server."""

import ssl
from pathlib import Path

import grpc
import msgspec

_TURNS = 10


class Tls(msgspec.Struct, frozen=True):
    """A certificate `file`, its contents, its key (both PEM), and a host name it was issued for ("" if
    unknown)."""

    file: Path
    certificate: bytes
    key: bytes
    name: str

    def credentials(self) -> grpc.ServerCredentials:
        """The credentials for gRPC's server."""
        return grpc.ssl_server_credentials([(self.key, self.certificate)])


class CertificateError(Exception):
    """The certificate cannot be used. The text says why, and names the configuration key."""


def read_tls(tls_cert: str | None, tls_key: str | None) -> Tls | None:
    """Read the files named by `grpc.tls_cert` and `grpc.tls_key`. None if neither is set: no TLS.

    Raises:
        CertificateError: one is not set or cannot be read, or they do not belong together.
    """
    if tls_cert is None and tls_key is None:
        return None
    if tls_cert is None or tls_key is None:
        missing, other = ("cert", "key") if tls_cert is None else ("key", "cert")
        raise CertificateError(f"grpc.tls_{missing}: not set, but grpc.tls_{other} needs it")
    certificate = _read("grpc.tls_cert", Path(tls_cert))
    key = _read("grpc.tls_key", Path(tls_key))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without this, OpenSSL would ask for the password of an encrypted key on the terminal.
        server.load_cert_chain(tls_cert, tls_key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise CertificateError(
            f"grpc.tls_cert, grpc.tls_key: {tls_cert} and {tls_key} are not a certificate and "
            f"its key in PEM: {error}"
        ) from None
    file = Path(tls_cert).absolute()
    return Tls(file, certificate, key, _name(server, file))


def _read(key: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CertificateError(f"{key}: cannot read {file}: {reason}") from None


class _AnyName(ssl.SSLContext):
    """Accepts the peer's certificate whatever its name, with its chain or without."""

    def __init__(self, _protocol: int) -> None:
        self.check_hostname = False
        self.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _name(server: ssl.SSLContext, file: Path) -> str:
    """A host name the certificate was issued for, or "". The standard library can only read the certificate
    of a TLS peer, so this runs a handshake with itself in memory."""
    client = _AnyName(ssl.PROTOCOL_TLS_CLIENT)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        client.load_verify_locations(file)
        ends = (client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True))
        for _ in range(_TURNS):
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        shown = ends[0].getpeercert() or {}
    except (ssl.SSLError, ValueError):
        return ""  # e.g. the certificate has expired
    names = [str(pair[1]) for pair in shown.get("subjectAltName", ()) if len(pair) == 2]
    names += [str(pair[1]) for part in shown.get("subject", ()) for pair in part if pair[0] == "commonName"]
    return names[0].replace("*", "node") if names else ""
