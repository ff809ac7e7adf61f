"""What must hold in a run, whatever has happened to the nodes and stores meanwhile.

Pure: a `Run` in, violations out. Each rule is a function, listed in `RULES`.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tests.history.records import Delivery, Entry, Reader, Run, Start, View

_NOT_MESSAGES = frozenset(("edit", "recall", "system"))


class Violation(NamedTuple):
    """A rule that does not hold."""

    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


def violations(run: Run) -> list[Violation]:
    """All that is wrong in a run."""
    stored = _Stored(run)
    return [Violation(name, what) for name, rule in RULES.items() for what in rule(run, stored)]


class _Stored:
    """What is stored, by the histories of all conversations."""

    def __init__(self, run: Run) -> None:
        self.histories: dict[str, list[Entry]] = {}
        for view in run.views:
            for conversation, entries in view.histories.items():
                self.histories.setdefault(conversation, entries)
        self.by_mark: dict[str, list[Entry]] = {}
        for entry in itertools.chain(*self.histories.values()):
            if is_message(entry):
                self.by_mark.setdefault(mark_of(entry), []).append(entry)


def is_message(entry: Entry) -> bool:
    """Edits, recalls and system entries are none."""
    return entry["type"] not in _NOT_MESSAGES


def mark_of(entry: Entry) -> str:
    """See `Sent.mark`."""
    return str(entry["content"]).partition(" ")[0]


# --- messages and the store ---------------------------------------------------------------


def _acknowledged_is_stored(run: Run, stored: _Stored) -> Iterator[str]:
    for sent in run.sent:
        found = stored.by_mark.get(sent.mark, [])
        if sent.acknowledged and not found:
            yield f"{sent.mark} was acknowledged and is not in {sent.conversation_id}"
        for entry in found:
            where = entry["conversation_id"], entry["from_user_id"], entry.get("client_msg_id")
            if where != (sent.conversation_id, sent.sender, sent.client_msg_id):
                yield f"{sent.mark} of {sent.sender} to {sent.conversation_id} is stored as {where}"


def _stored_once(run: Run, stored: _Stored) -> Iterator[str]:
    known = {sent.mark for sent in run.sent}
    for sent in run.sent:
        count, most = len(stored.by_mark.get(sent.mark, [])), 1 if sent.client_msg_id else sent.tries
        if count > max(1, most):
            seqs = [entry["seq"] for entry in stored.by_mark[sent.mark]]
            yield f"{sent.mark}, sent {sent.tries} times, is stored {count} times, as {seqs}"
    for mark in stored.by_mark.keys() - known:
        yield f"nobody has sent {mark!r}"
    ids = Counter(str(entry["id"]) for entry in itertools.chain(*stored.histories.values()))
    for which, count in ids.items():
        if count > 1:
            yield f"{count} entries have the id {which}"


def _first_id(run: Run, stored: _Stored) -> Iterator[str]:
    for sent in run.sent:
        for id, seq in sent.answers:
            places = [(entry["id"], entry["seq"]) for entry in stored.by_mark.get(sent.mark, [])]
            if (id, seq) not in places:
                yield f"{sent.mark} was answered with {id} at {seq} and is stored as {places}"
        if sent.client_msg_id and len(set(sent.answers)) > 1:
            yield f"{sent.mark} was answered with {sent.answers}"


def _order_of_senders(run: Run, stored: _Stored) -> Iterator[str]:
    """Pipelined publishes to a conversation are stored in their order: each before the first of the next."""
    numbers = {sent.mark: (sent.sender, sent.number) for sent in run.sent if sent.number}
    for conversation, entries in stored.histories.items():
        last: dict[str, int] = {}
        seen: set[str] = set()
        for entry in entries:
            mark = mark_of(entry)
            if not is_message(entry) or mark not in numbers or mark in seen:
                continue
            seen.add(mark)
            sender, number = numbers[mark]
            if number < last.get(sender, 0):
                yield f"in {conversation} {sender}'s number {number} comes after {last[sender]}"
            last[sender] = number


def _edits(run: Run, stored: _Stored) -> Iterator[str]:
    entries = list(itertools.chain(*stored.histories.values()))
    made = [entry for entry in entries if entry["type"] == "edit"]
    counts = Counter((entry["target_id"], str(entry["content"])) for entry in made)
    for edit in run.edits:
        count = counts[edit.target_id, edit.content]
        if not edit.acknowledged <= count <= edit.tries:
            done = "acknowledged" if edit.acknowledged else "not acknowledged"
            yield f"{edit.content!r}, {done}, tried {edit.tries} times, is there {count} times"
    last = {entry["target_id"]: entry["content"] for entry in made}
    for entry in entries:
        if is_message(entry) and entry["content"] != last.get(entry["id"], entry["content"]):
            yield f"{entry['id']} is {entry['content']!r} after an edit to {last[entry['id']]!r}"


# --- the logs -----------------------------------------------------------------------------


def _gapless(run: Run, stored: _Stored) -> Iterator[str]:
    for view in run.views:
        for topic, log in view.logs.items():
            offsets = [entry["offset"] for entry in log]
            yield from _gaps(f"{view.user}: offsets of {topic}", offsets, run.offsets.get(topic, 0))
        for conversation, entries in view.histories.items():
            seqs, start = [entry["seq"] for entry in entries], _start(run, conversation).seq
            yield from _gaps(f"{view.user}: seqs of {conversation}", seqs, start)


def _gaps(what: str, numbers: Sequence[int], start: int) -> Iterator[str]:
    for expected, number in enumerate(numbers, start + 1):
        if number != expected:
            yield f"{what} have {number} in place of {expected}"
            return


def _start(run: Run, conversation: str) -> Start:
    return run.starts.get(conversation, Start(0, 0))


def _all_see_the_same(run: Run, stored: _Stored) -> Iterator[str]:
    """The history of a conversation is the same for all its members and in all logs. For a private one that
    means: both inboxes have an entry for each message."""
    for view in run.views:
        in_logs: dict[str, list[Entry]] = {conversation: [] for conversation in view.histories}
        for entry in itertools.chain(*view.logs.values()):
            in_logs.setdefault(entry["conversation_id"], []).append(entry)
        for where, entries in in_logs.items():
            yield from _differences(f"{view.user}'s log of {where}", entries, stored.histories.get(where, []))
        for where, entries in view.histories.items():
            yield from _differences(f"{view.user}'s history of {where}", entries, stored.histories[where])


def _differences(what: str, some: Sequence[Entry], others: Sequence[Entry]) -> Iterator[str]:
    for one, other in zip(some, others, strict=False):
        if _shown(one) != _shown(other):
            yield f"{what} has {_shown(one)} in place of {_shown(other)}"
            return
    if len(some) != len(others):
        yield f"{what} has {len(some)} entries in place of {len(others)}"


def _shown(entry: Entry) -> Mapping[str, object]:
    return {key: value for key, value in entry.items() if key not in ("offset", "edited_at")}


# --- readers ------------------------------------------------------------------------------


def _readers(run: Run, stored: _Stored) -> Iterator[str]:
    logs = {view.user: view.logs for view in run.views}
    for reader in run.readers:
        if reader.lost:
            yield f"the session of {reader.client_id} was lost {reader.lost} times"
        for topic in reader.topics:
            deliveries = [each for each in reader.deliveries if each.topic == topic]
            start, log = run.offsets.get(topic, 0), logs[reader.user].get(topic, [])
            yield from _follows(reader, topic, deliveries, start, log)
            yield from _repeats(reader, topic, deliveries, run.may_repeat)


def _follows(
    reader: Reader, topic: str, deliveries: Sequence[Delivery], start: int, log: Sequence[Entry]
) -> Iterator[str]:
    """With repeats removed, the reader's sequence is the log's."""
    entries = {entry["offset"]: entry for entry in log}
    who, reached = f"{reader.client_id} on {topic}", start
    for delivery in deliveries:
        offset = delivery.offset
        if offset > reached + 1:
            yield f"{who} got {offset} after {reached} on connection {delivery.connection}"
        reached = max(reached, offset)
        entry = entries.get(offset)
        got = delivery.id, delivery.seq, delivery.client_msg_id
        if entry is None:
            if offset > start:
                yield f"{who} got {got} at {offset}, where the log has nothing"
        elif got != (stored := (entry["id"], entry["seq"], entry.get("client_msg_id"))):
            yield f"{who} got {got} at {offset}, where the log has {stored}"
    if reached < start + len(log):
        yield f"{who} has got as far as {reached} of {start + len(log)}"


def _repeats(reader: Reader, topic: str, deliveries: Sequence[Delivery], may_repeat: bool) -> Iterator[str]:
    """A connection gets each entry once, in order. An exactly-once session gets it once in all."""
    last: dict[int, int] = {}
    seen: set[int] = set()
    who = f"{reader.client_id} on {topic}"
    for delivery in deliveries:
        offset, before = delivery.offset, last.get(delivery.connection, 0)
        if offset <= before:
            yield f"{who} got {offset} after {before} on one connection, {delivery.connection}"
        if offset in seen and reader.qos == 2 and not may_repeat:
            yield f"{who} got {offset} twice, with QoS 2, on connection {delivery.connection}"
        last[delivery.connection] = offset
        seen.add(offset)


# --- counts -------------------------------------------------------------------------------


def _counted(run: Run, stored: _Stored) -> Iterator[str]:
    """Each entry carries `n`, the number of messages up to it."""
    for conversation, entries in stored.histories.items():
        n = _start(run, conversation).n
        for entry in entries:
            n += is_message(entry)
            if entry.get("n") != n:
                yield f"{conversation}: entry {entry['seq']} has the count {entry.get('n')} in place of {n}"
                break


def _listed(run: Run, stored: _Stored) -> Iterator[str]:
    """The list of conversations says what the history says."""
    read = {(user, where): 0 for user, where, _ in run.reads}
    for user, where, seq in run.reads:
        read[user, where] = max(read[user, where], seq)
    for view in run.views:
        for where, entries in view.histories.items():
            if not entries:
                continue
            if where not in view.listed:
                yield f"{view.user}: {where} is not listed"
                continue
            yield from _agrees(view, where, entries, read.get((view.user, where), 0))


def _agrees(view: View, where: str, entries: Sequence[Entry], read: int) -> Iterator[str]:
    listed, who = view.listed[where], f"{view.user}: {where}"
    if listed["head_seq"] != entries[-1]["seq"]:
        yield f"{who} ends at {entries[-1]['seq']} and is listed with {listed['head_seq']}"
    if listed["read_seq"] < read:
        yield f"{who} was read up to {read} and is listed with {listed['read_seq']}"
    messages = [entry for entry in entries if is_message(entry)]
    own = [entry["seq"] for entry in messages if entry["from_user_id"] == view.user]
    known = max(listed["read_seq"], *own, 0)
    unread = sum(entry["seq"] > known and entry["from_user_id"] != view.user for entry in messages)
    if listed["unread"] != unread:
        yield f"{who} has {unread} unread messages after {known} and is listed with {listed['unread']}"
    if messages and (listed["last_message"] or {}).get("id") != messages[-1]["id"]:
        yield f"{who} ends with {messages[-1]['id']} and is listed with {listed['last_message']}"


RULES = {
    "acknowledged is stored": _acknowledged_is_stored,
    "stored once": _stored_once,
    "a retry returns the first id": _first_id,
    "the order of a sender": _order_of_senders,
    "edits": _edits,
    "gapless": _gapless,
    "all see the same": _all_see_the_same,
    "readers follow the log": _readers,
    "n counts messages": _counted,
    "unread counts": _listed,
}
