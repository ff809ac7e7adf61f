"""Puts together a node's side of its cluster."""

import msgspec

from broker.cluster.counting import Counting
from broker.cluster.others import Others
from broker.cluster.wills import Wills
from broker.delivery.away import AwaySessions
from broker.delivery.interest import Interest
from broker.delivery.moves import Moves
from broker.delivery.online import Online
from broker.domain.presence import PresenceDocument
from broker.domain.topics import parse_topic, presence_topic
from broker.ports import Backplane
from broker.registry import Client
from broker.states import States
from broker.status.presence import Presence
from broker.tasks import Tasks


def meet(
    backplane: Backplane,
    states: States,
    away: AwaySessions,
    online: Online[Client],
    presence: Presence,
    moves: Moves,
    interest: Interest,
    tasks: Tasks,
) -> Others:
    """The other nodes of a cluster, for a node with these parts."""

    async def status_of(user: str) -> str | None:
        topic = presence_topic(user)
        kept = (await states.store.retained_on([topic])).get(topic)
        return None if kept is None else msgspec.json.decode(kept.payload, type=PresenceDocument).status

    async def live_users() -> list[str]:
        return [parse_topic(topic).owner for topic in await states.store.live_retained()]

    def here(user: str) -> int:
        return len(online.of(user))

    counting = Counting(backplane, presence, here, status_of, tasks)
    wills = Wills(states, backplane.name)
    return Others(backplane, away, counting, wills, live_users, presence.set_offline, tasks, moves, interest)
