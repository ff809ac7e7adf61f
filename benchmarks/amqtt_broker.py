"""A stock amqtt broker that accepts anonymous clients: ``python -m benchmarks.amqtt_broker PORT``."""

import asyncio
import sys

# amqtt has no type information. "unused-ignore" is for mypy configurations that ignore its imports already.
from amqtt.broker import Broker  # type: ignore[import-untyped, unused-ignore]


async def serve(port: int) -> None:
    """Serve MQTT over TCP on 127.0.0.1:`port` until the process is killed."""
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {
            "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True},
        },
    }
    await Broker(config).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
