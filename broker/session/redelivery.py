"""Redelivery of log entries that earlier connections of a session sent and that were not acknowledged.

Each entry has a packet id in the window, which is unsent or released. The entry itself has a state of
`laws.ENTRY`. Entries are not kept in memory: when their log is read again, the tail gets their offsets
and sends them again. Acknowledgements that arrive before that are applied here.
"""

from collections.abc import Collection, Iterable

from broker.ports import Redelivery
from broker.session.laws import ENTRY, EntryState, Event, after
from broker.session.logs import Logs
from broker.session.tail import Tail
from broker.session.window import InFlight, Window
from broker.wire.encoder import Outgoing

Address = tuple[str, int]
"""Log and offset."""


class Redeliveries:
    """The entries that earlier connections sent and that the reader has not passed yet."""

    __slots__ = ("_addresses", "_entries", "_logs", "_window")

    def __init__(self, window: Window, logs: Logs) -> None:
        self._window = window
        self._logs = logs
        self._addresses: dict[int, Address] = {}
        """Packet id -> entry, for packet ids that an earlier connection used and this one has not yet."""
        self._entries: dict[Address, EntryState] = {}
        """Entry -> its state. Entries in the state PLAIN are left out."""

    def state(self, address: Address) -> EntryState:
        """The state of an entry."""
        return self._entries.get(address, EntryState.PLAIN)

    def _unsent(self) -> set[int]:
        """The packet ids of the entries that must be sent again."""
        return {i for i, address in self._addresses.items() if self.state(address) is EntryState.UNSENT}

    def _move(self, address: Address, event: Event) -> None:
        state = after(ENTRY, event, self.state(address))
        if state is EntryState.PLAIN:
            self._entries.pop(address, None)
        else:
            self._entries[address] = state

    # --- between connections ---------------------------------------------------------

    def restore(self, item: Redelivery) -> None:
        """Add an entry that the last connection left. Its packet id stays in use until the entry is sent
        again and acknowledged, or given up [MQTT-2.3.1-3]."""
        address = (item.log, item.offset)
        if item.released:
            self._move(address, Event.RESTORE_HAD)
        if not item.packet_id:
            return
        is_listed = address in self._addresses.values()
        self._window.restore(item.packet_id, item.qos, item.released)
        if is_listed:  # the entry was sent with two packet ids: one redelivery is enough
            self._window.lose(item.packet_id)
            return
        self._addresses[item.packet_id] = address
        if not item.released:
            self._move(address, Event.RESTORE_UNSENT)

    def snapshot(self, in_flight: Iterable[tuple[int, InFlight]]) -> list[Redelivery]:
        """What the next connection must `restore`: the entries in the window, then the acknowledged entries
        after a cursor, with packet id 0."""
        listed = []
        for packet_id, sent in in_flight:
            if (address := self._address(packet_id, sent)) is not None:
                listed.append(Redelivery(packet_id, *address, sent.qos, sent.is_released))
        known = {(item.log, item.offset) for item in listed}
        had = {address for address, state in self._entries.items() if state is EntryState.HAD}
        return listed + [Redelivery(0, *address, 2, True) for address in sorted(had - known)]

    def _address(self, packet_id: int, sent: InFlight) -> Address | None:
        if sent.tail is not None:
            return sent.tail.log, sent.offset
        return self._addresses.get(packet_id)

    # --- reading ---------------------------------------------------------------------

    def hand_over(self, tail: Tail) -> None:
        """A log is read again: tell its tail which entries to send again, and which to skip."""
        for packet_id in self._unsent():
            log, offset = self._addresses[packet_id]
            if log == tail.log:
                tail.owe(offset, packet_id)
        for address, state in list(self._entries.items()):
            if state is EntryState.HAD and address[0] == tail.log:
                if address[1] > tail.position:
                    tail.skip(address[1])
                else:
                    self._move(address, Event.READ)

    def read(self, tail: Tail, offset: int, outgoing: Outgoing, packet_id: int) -> None:
        """The reader has reached an entry of `tail.resend`. Send it again, or skip it if `packet_id` is 0."""
        self._move((tail.log, offset), Event.READ)
        if packet_id:
            self._addresses.pop(packet_id, None)
            self._window.publish_entry_again(packet_id, outgoing, tail, offset)

    def lose(self, packet_ids: Iterable[int]) -> None:
        """Give up entries that cannot be sent again. Cursors move back before them, so that they are read if
        the right to read them returns."""
        for packet_id in packet_ids:
            log, offset = address = self._addresses.pop(packet_id)
            self._move(address, Event.LOSE)
            self._logs.go_back(log, offset)
            self._window.lose(packet_id)

    def drop_after(self, log: str, offset: int) -> list[int]:
        """The entries of a log after an offset are not there any more. Returns the packet ids of those that
        must be sent again, for `lose`; forgets those that the receiver has."""
        gone = [address for address in self._entries if address[0] == log and address[1] > offset]
        for address in gone:
            if self.state(address) is EntryState.HAD:
                self._move(address, Event.READ)
        return [packet_id for packet_id in self._unsent() if self._addresses[packet_id] in gone]

    def unsent_of(self, log: str) -> list[int]:
        """Offsets of a log's entries that are to be sent again."""
        addresses = [self._addresses[packet_id] for packet_id in self._unsent()]
        return sorted(offset for unsent, offset in addresses if unsent == log)

    @property
    def unsent_logs(self) -> set[str]:
        """Logs with entries that are to be sent again."""
        return {self._addresses[packet_id][0] for packet_id in self._unsent()}

    def unsent_outside(self, logs: Collection[str]) -> list[int]:
        """The packet ids of entries that must be sent again and whose log is not in `logs`."""
        return [packet_id for packet_id in self._unsent() if self._addresses[packet_id][0] not in logs]

    # --- answers ---------------------------------------------------------------------

    def answered(self, packet_id: int) -> None:
        """The receiver has the message of a packet id. If it was to be sent again, it is not."""
        address = self._addresses.get(packet_id)
        if address is None or self.state(address) is not EntryState.UNSENT:
            return
        self._move(address, Event.ANSWER)
        log, offset = address
        tail = self._logs.tail_of(log)
        if tail is None:
            return
        tail.resend.pop(offset, None)
        if offset > tail.position:
            tail.skip(offset)
        else:
            self._move(address, Event.READ)

    def done(self, packet_id: int) -> None:
        """The packet id is free."""
        self.answered(packet_id)
        self._addresses.pop(packet_id, None)
