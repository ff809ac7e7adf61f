"""The gRPC example of docs/api.md works as it is printed."""

import os
import re
import subprocess
import sys
from collections.abc import Callable

import grpc
import pytest

from bridge.grpc_api import im_admin_pb2 as admin
from bridge.grpc_api import im_pb2 as im
from bridge.grpc_api import im_pb2_grpc as services
from tests.integration.node import ROOT, Node, password

PAGE = (ROOT / "docs" / "api.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [block for its_language, block in found if its_language == language]


def imctl(node: Node, command: str) -> str:
    command = command.replace("imctl", f"{sys.executable} -m cli --data-dir {node.data_dir}", 1)
    return subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.timeout(60)
def test_the_example_prints_what_the_page_says(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    node.call("AddUser", admin.AddUserRequest(user_id="bob", password=password("bob"), role="user"))
    (commands,) = (block for block in blocks("") if block.startswith("imctl"))
    token = [imctl(node, command) for command in commands.splitlines()][-1].strip()
    (example,) = blocks("python")
    (printed,) = (block for block in blocks("") if block.startswith("p:bob:shop"))
    for _ in range(2):  # sent again, it is stored once
        result = subprocess.run(
            [sys.executable, "-c", example.replace("127.0.0.1:50051", node.grpc)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"SHOP_TOKEN": token},
        )
        assert (result.stdout, result.stderr) == (printed, "")


def test_a_text_without_its_quotes_is_no_json(node: Node) -> None:
    user = node.user("ann")
    metadata = (*node.metadata, ("im-on-behalf-of", user))
    with grpc.insecure_channel(node.grpc) as channel:
        request = im.SendRequest(user_id=user, content=b"Your parcel is here")
        with pytest.raises(grpc.RpcError) as refused:
            services.MessageServiceStub(channel).SendMessage(request, metadata=metadata)
    assert dict(refused.value.trailing_metadata())["im-error-code"] == "invalid_params"
