"""gRPC over TLS."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from bridge.grpc_api import im_pb2 as pb
from tests.integration.grpc_kit import (
    Client,
    address,
    bearer,
)
from tests.integration.node import HOST, ROOT, Node
from tests.integration.test_serve import serve


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for im.example.org, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    options = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    subject = ("-subj", "/CN=Parley", "-addext", "subjectAltName=DNS:im.example.org")
    files = ("-keyout", str(key), "-out", str(cert))
    subprocess.run(("openssl", "req", *options, *subject, *files), check=True, capture_output=True)
    return cert, key


def test_tls(tmp_path: Path, make_node: Callable[..., Node]) -> None:
    cert, key = certificate(tmp_path)
    node = make_node(f"grpc.tls_cert={cert}", f"grpc.tls_key={key}").start()
    imctl = (sys.executable, "-m", "cli", "--data-dir", str(node.data_dir))
    for command in (("user", "add", "alice", "--password", "secret"), ("token", "alice")):
        done = subprocess.run((*imctl, *command), capture_output=True, text=True, cwd=ROOT, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    token = done.stdout.strip()
    credentials = grpc.ssl_channel_credentials(root_certificates=cert.read_bytes())
    options = (("grpc.ssl_target_name_override", "im.example.org"),)
    with grpc.secure_channel(address(node), credentials, options=options) as channel:
        (own,) = Client(channel, bearer(token)).call("GetUsers", pb.GetUsersRequest()).users
    assert own.user_id == "alice"
    with grpc.insecure_channel(address(node)) as clear, pytest.raises(grpc.RpcError):
        Client(clear, bearer(token)).call("GetUsers", pb.GetUsersRequest(), timeout=5)


def test_tls_files_that_do_not_belong_together(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    cert, _ = certificate(tmp_path / "one")
    _, key = certificate(tmp_path / "two")
    binds = [f"{name}.bind={HOST}:0" for name in ("listeners.default", "listeners.ws", "grpc", "http")]
    files = [f"grpc.tls_cert={cert}", f"grpc.tls_key={key}"]
    settings = [part for setting in (*binds, *files) for part in ("--set", setting)]
    for given in (settings, settings[:-2]):
        status, error = serve("config/broker.yaml", "--data-dir", str(tmp_path / "data"), *given)
        assert (status, error.count("\n")) == (2, 1)
        assert ": grpc.tls_" in error
