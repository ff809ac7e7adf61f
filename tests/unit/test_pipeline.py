"""What the pipeline remembers of a client's rights."""

from collections.abc import Callable
from typing import Any

from broker.delivery.away import AwaySessions
from broker.delivery.fanout import Fanout
from broker.delivery.router import Router
from broker.domain.errors import Refusal
from broker.domain.topics import Topic
from broker.metrics import Metrics
from broker.ports import Identity, Principal
from broker.publish.pipeline import Pipeline
from broker.publish.publisher import Publisher
from broker.wire.packets import Publish

NOTHING: Any = None


class Gate:
    """Lets all pass; `meanwhile` happens while it is asked."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile

    async def may_publish(self, principal: Principal, topic: Topic) -> Refusal | None:
        self._meanwhile()
        return None


async def test_a_permit_of_before_a_change_is_not_remembered() -> None:
    publisher = Publisher(Principal(Identity("alice")))
    for meanwhile, remembered in ((publisher.forget_permits, []), (lambda: None, ["open/door"])):
        gate: Any = Gate(meanwhile)
        fanout = Fanout(Router(), AwaySessions(NOTHING, [], 1, 1 << 20), NOTHING, Metrics())
        rest = (NOTHING, NOTHING, fanout, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, Metrics())
        asked = Pipeline(gate, *rest).publish(publisher, Publish("open/door", b"x"), None)
        assert asked is not None
        await asked
        assert list(publisher.permits) == remembered
