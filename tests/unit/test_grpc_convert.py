"""Messages to parameters and results to messages: what `bytes` are follows from the operation's types."""

from typing import Annotated, Any

import msgspec
import pytest
from google.protobuf.message import Message

from bridge.administration import admin_operations
from bridge.core.operations import Operations
from bridge.grpc_api import im_admin_pb2 as admin
from bridge.grpc_api import im_pb2 as pb
from bridge.grpc_api.convert import to_message, to_parameters
from bridge.handlers.admin.connections import ListResult, SessionView
from bridge.handlers.admin.counters import StatsResult
from bridge.handlers.admin.messages import HistoryResult, TailEntry
from bridge.services import offered_operations
from broker.domain.errors import RefusedError

NOT_JSON = b'\xff{"'


def taken(operations: Operations, name: str, message: Message) -> Any:
    """The parameters an operation gets for a request."""
    kind = operations[name].parameters
    return msgspec.convert(to_parameters(message, kind), kind)


def test_bytes_of_a_parameter_that_is_bytes_are_taken_as_they_are() -> None:
    for payload in (NOT_JSON, b'{"content": 1}', b""):
        request = admin.SendMessageRequest(sender="alice", topic="groups/team", payload=payload)
        assert taken(admin_operations(), "admin.messages.send", request).payload == payload


def test_bytes_of_any_other_parameter_hold_json() -> None:
    request = pb.SendRequest(user_id="bob", content=b'{"k": [1]}', mentions=b'["carol"]')
    parameters = taken(offered_operations(), "messages.send", request)
    assert (parameters.content, parameters.mentions) == ({"k": [1]}, ["carol"])
    batch = pb.SendBatchRequest(messages=[request, pb.SendRequest(content=b'"hi"')])
    parameters = taken(offered_operations(), "messages.send_batch", batch)
    assert [each.content for each in parameters.messages] == [{"k": [1]}, "hi"]
    request.content = NOT_JSON
    batch = pb.SendBatchRequest(messages=[request])
    for name, bad in (("messages.send", request), ("messages.send_batch", batch)):
        with pytest.raises(RefusedError, match="content: not valid JSON"):
            taken(offered_operations(), name, bad)


class Wrapped(msgspec.Struct):
    """`bytes` as an annotation may wrap them."""

    payload: Annotated[bytes, msgspec.Meta(max_length=9)] | None = None


def test_bytes_that_are_annotated_or_may_be_none_are_bytes_still() -> None:
    values = to_parameters(admin.SendMessageRequest(payload=NOT_JSON), Wrapped)
    assert values["payload"] == NOT_JSON


def test_what_an_old_client_leaves_out_is_the_default() -> None:
    parameters = taken(admin_operations(), "admin.users.add", admin.AddUserRequest(user_id="alice"))
    assert (parameters.password, parameters.role) == (None, "")
    parameters = taken(admin_operations(), "admin.messages.tail", admin.TailRequest(topic="groups/team"))
    assert parameters.after is None
    parameters = taken(
        admin_operations(), "admin.messages.tail", admin.TailRequest(topic="groups/team", after=0)
    )
    assert parameters.after == 0
    assert taken(admin_operations(), "admin.groups.list", admin.PageRequest()).limit == 0


def test_results() -> None:
    message = to_message(admin.Entry.DESCRIPTOR, TailEntry(msgspec.Raw(b'{"a": 1}')))
    assert message == admin.Entry(json=b'{"a": 1}')
    history = HistoryResult([msgspec.Raw(b"1"), msgspec.Raw(b"[]")])
    assert to_message(admin.HistoryResponse.DESCRIPTOR, history) == admin.HistoryResponse(
        messages=[b"1", b"[]"]
    )
    stats = to_message(admin.StatsResponse.DESCRIPTOR, StatsResult({"a": 1, "b": 2**40}))
    assert stats == admin.StatsResponse(values={"a": 1, "b": 2**40})
    sessions = to_message(
        admin.ListSessionsResponse.DESCRIPTOR,
        ListResult([SessionView("", "c", "h:1", "online", 5, False, 0, None, 2)], "x"),
    )
    session = admin.Session(client_id="c", address="h:1", state="online", since=5, backlog=2)
    assert sessions == admin.ListSessionsResponse(sessions=[session], next="x")


def test_fields_that_this_node_does_not_know_are_refused() -> None:
    """Protobuf would leave them out without a word."""
    known = pb.SendRequest(user_id="bob", content=b'"hi"')
    later = pb.SendRequest.FromString(known.SerializeToString() + b"\xa2\x06\x01x")
    batch = pb.SendBatchRequest(messages=[known, later])
    for name, request in (("messages.send", later), ("messages.send_batch", batch)):
        with pytest.raises(RefusedError, match=r"im\.SendRequest: field 100 is unknown"):
            taken(offered_operations(), name, request)
