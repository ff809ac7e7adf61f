"""What the pipeline remembers of a client's rights."""

from collections.abc import Callable
from typing import Any, cast

from broker.delivery.router import Router
from broker.delivery.subscriber import Subscriber
from broker.domain.errors import Refusal
from broker.domain.topics import Topic
from broker.metrics import Metrics
from broker.ports import Grant, Identity, Principal
from broker.publish.pipeline import Pipeline, Publisher
from broker.wire.packets import Publish


class Gate:
    """Lets all pass; `meanwhile` happens while it is asked."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile

    async def may_publish(self, principal: Principal, topic: Topic) -> Refusal | None:
        self._meanwhile()
        return None

    async def authenticate(self, credentials: object) -> Principal | None:
        raise NotImplementedError

    async def grant(self, principal: Principal, topic_filter: str) -> Grant | None:
        raise NotImplementedError


async def test_a_permit_of_before_a_change_is_not_remembered() -> None:
    publisher = Publisher(Principal(Identity("alice")))
    packet = Publish("open/door", b"x", 0, 0, False)
    for meanwhile, remembered in ((publisher.forget_permits, []), (lambda: None, ["open/door"])):
        router: Router[Subscriber] = Router()
        pipeline = Pipeline(router, Gate(meanwhile), cast("Any", None), Metrics())
        asked = pipeline.publish(publisher, packet, None)
        assert asked is not None
        await asked
        assert list(publisher.permits) == remembered
