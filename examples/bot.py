"""A bot that answers whoever writes to it, and in its groups whoever mentions it.

    python examples/bot.py HOST PORT BOT PASSWORD

What is written while it is away waits in its persistent session. An answer has a `client_msg_id` made of
the question's id: a question that is delivered again is answered once.
"""

import asyncio
import json
import sys
import time
from typing import Any

import aiomqtt

host, port, bot, password = sys.argv[1:]


def answer(text: str) -> str:
    match text.casefold().replace(f"@{bot.casefold()}", "").split():
        case ["time"]:
            return time.strftime("%H:%M:%S")
        case ["add", *numbers] if all(number.lstrip("-").isdecimal() for number in numbers):
            return str(sum(map(int, numbers)))
    return "I know: time; add NUMBER..."


def is_for_me(message: dict[str, Any]) -> bool:
    if message["from_user_id"] == bot or message.get("type") != "text":  # edits, recalls, joins, ...
        return False
    return message["conversation_type"] == "private" or bot in message.get("mentions", ())


async def serve(client: aiomqtt.Client) -> None:
    await client.subscribe([(f"users/{bot}/inbox", 1), ("groups/+", 1), (f"users/{bot}/events", 1)])
    async for received in client.messages:
        message = json.loads(received.payload)
        if "event" in message:
            print(message, file=sys.stderr)  # an answer was refused, and other news
        elif is_for_me(message):
            group, user = message.get("group_id"), message["from_user_id"]
            topic = f"groups/{group}" if group else f"users/{user}/inbox"
            reply = {"content": answer(message["content"]), "reply_to": message["id"]}
            reply["client_msg_id"] = f"re-{message['id']}"
            await client.publish(topic, json.dumps(reply), qos=1)


async def main() -> None:
    while True:
        try:
            session = {"identifier": f"{bot}-1", "clean_session": False}
            async with aiomqtt.Client(host, int(port), username=bot, password=password, **session) as client:
                await serve(client)
        except aiomqtt.MqttError as error:
            print(f"{error}; connecting again", file=sys.stderr)
            await asyncio.sleep(1)


asyncio.run(main())
