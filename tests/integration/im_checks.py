"""What must hold for a user's devices after any run of operations: all views of the logs agree."""

import itertools

from tests.integration.im import Device, Entry, fold
from tests.integration.im_model import Model

Logs = dict[str, list[Entry]]


def assert_gapless(model: Model, user: str, synced: Logs) -> None:
    """A fresh device gets each conversation complete: every stored entry once, in order."""
    inbox = synced.get(f"users/{user}/inbox", [])
    assert [entry["offset"] for entry in inbox] == _numbers(0, len(inbox))
    private: dict[str, list[int]] = {}
    for entry in inbox:
        private.setdefault(entry["conversation_id"], []).append(entry["seq"])
    assert private == {where: _numbers(0, model.heads[where]) for where in model.private_of(user)}
    groups = {group.topic: group for group in model.groups_of(user)}
    assert groups.keys() == {topic for topic in synced if topic.startswith("groups/")}
    for topic, group in groups.items():
        expected = _numbers(group.members[user].floor, group.head)
        assert [entry["seq"] for entry in synced[topic]] == expected
        assert [entry["offset"] for entry in synced[topic]] == expected


def _numbers(after: int, upto: int) -> list[int]:
    return list(range(after + 1, upto + 1))


def assert_saw_the_same(model: Model, device: Device, synced: Logs) -> None:
    """A device received live what a fresh one syncs, and nothing that was not for it."""
    device.until(lambda: _has_all(device, synced), "all that is stored")
    assert device.entries.keys() <= synced.keys() | {group.topic for group in model.groups}
    for topic, log in synced.items():
        first = _first(model, device.user, topic)
        seen = [entry for entry in device.log(topic) if entry["offset"] >= first]
        stored = [entry for entry in log if entry["offset"] >= first]
        later = _shown_later(model, device.user, seen, stored)
        live = fold([entry for entry in seen if entry["offset"] not in later])
        fresh = fold([entry for entry in stored if entry["offset"] not in later])
        assert live == fresh, f"{device.user}'s {device.name} saw another {topic} than is synced"
    for group in model.groups:
        spans = group.spans.get(device.user, [])
        for offset in device.entries.get(group.topic, ()):
            assert any(offset in span for span in spans), f"{device.user} saw {offset} of {group.id}: {spans}"


def _has_all(device: Device, synced: Logs) -> bool:
    return all(log[-1]["offset"] in device.entries.get(topic, ()) for topic, log in synced.items())


def _first(model: Model, user: str, topic: str) -> int:
    """Where a device that has been there from the beginning has all that follows. Who comes back to a
    group that shows its history by then may sync more than was pushed: a cursor does not go back."""
    for group in model.groups:
        if topic == group.topic:
            return 1 + max(span.floor for span in group.spans[user])
    return 1


def _shown_later(model: Model, user: str, seen: list[Entry], stored: list[Entry]) -> set[int]:
    """What was withheld from a member who left, and came back when the group showed its history."""
    withheld = {entry["offset"]: entry["conversation_id"] for entry in seen if "withheld" in entry}
    later = {entry["offset"] for entry in stored if "withheld" not in entry and entry["offset"] in withheld}
    for offset in later:
        group = model.group_of(withheld[offset])
        assert group is not None
        assert max(span.floor for span in group.spans[user]) > group.members[user].floor
    return later


def assert_only_forward(device: Device, since: int) -> None:
    """The receipts among a device's events after the first `since`."""
    told: dict[tuple[str, str, str], int] = {}
    for event in device.events[since:]:
        if event["event"] == "receipt":
            key = (event["conversation_id"], event["user_id"], event["status"])
            assert event["seq"] >= told.get(key, 0), f"{event} after {told[key]}"
            told[key] = event["seq"]


def assert_counted(model: Model, devices: list[Device], synced: Logs) -> None:
    """Conversations are listed alike on all devices, and counted as the model has them."""
    first, *others = [device.rpc("conversations.list") for device in devices]
    user = devices[0].user
    for view in itertools.chain.from_iterable(each["conversations"] for each in (first, *others)):
        del view["peer_delivered_seq"]  # it follows the PUBACKs of devices, half a second later
    for other in others:
        assert other["conversations"] == first["conversations"]
        assert other["unread_total"] == first["unread_total"]
    logs: dict[str, list[Entry]] = {}
    for entry in itertools.chain(*synced.values()):
        logs.setdefault(entry["conversation_id"], []).append(entry)
    floors = {group.conversation: group.members[user].floor for group in model.groups_of(user)}
    views = {view["conversation_id"]: view for view in first["conversations"]}
    assert views.keys() == floors.keys() | model.private_of(user)
    for where, view in views.items():
        assert view["head_seq"] == logs[where][-1]["seq"]
        assert view["read_seq"] == model.read[user, where]
        assert view["unread"] == model.unread(user, where)
        if view["peer"] is not None:
            peer = view["peer"]["user_id"]
            assert view["peer_read_seq"] in (0, model.read[peer, where])  # 0: no read receipts
            if (user, peer) in model.blocks or (peer, user) in model.blocks:
                assert view["peer_read_seq"] == 0
        last, shown = model.last(user, where), view["last_message"]
        assert (shown and (shown["id"], shown["content"])) == (last and (last.id, last.content))
        for entry in logs[where]:
            assert entry["n"] == len(model.said(where, entry["seq"]))
    assert first["unread_total"] == sum(view["unread"] for view in views.values())


def assert_related(model: Model, device: Device, users: list[str]) -> None:
    """Contacts and groups agree with the model."""
    user = device.user
    listed = device.rpc("contacts.list", state="all")["contacts"]
    found = {contact["user_id"]: (contact["state"], contact["blocked"]) for contact in listed}
    for peer in users:
        state = model.contacts.get((user, peer), "none"), (user, peer) in model.blocks
        assert found.get(peer, ("none", False)) == state
    for group in model.groups_of(user):
        members = device.rpc("groups.members", group_id=group.id)["members"]
        assert {member["user_id"]: (member["role"], member["joined_seq"]) for member in members} == {
            member: (place.role, place.floor) for member, place in group.members.items()
        }
