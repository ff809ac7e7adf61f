"""A sensor: each reading, a few bytes, is stored once, whatever happens to the link, the node or the sensor.

    python examples/device.py HOST PORT DEVICE PASSWORD STATION SPOOL

Nothing is lost: a reading is in the file SPOOL until its PUBACK, which means "stored and fsynced".
Nothing is stored twice: a reading sent again has the same `client_msg_id`.
"""

import base64
import json
import os
import queue
import sqlite3
import struct
import sys
import time
import uuid

import paho.mqtt.client as mqtt

host, port, device, password, station, file = sys.argv[1:]
INTERVAL, WINDOW = float(os.environ.get("INTERVAL", "1")), 50  # seconds; readings on their way at once

spool = sqlite3.connect(file, isolation_level=None)
spool.execute("CREATE TABLE IF NOT EXISTS readings (number INTEGER PRIMARY KEY AUTOINCREMENT, id, bytes)")
acknowledged: "queue.Queue[int]" = queue.Queue()  # packet ids


def read_sensor() -> bytes:
    return struct.pack(">Qf", time.time_ns(), os.getloadavg()[0])


def publish(reading_id: str, reading: bytes) -> int:
    """Send a reading, in the form that raw bytes get, but with an id of its own. Returns its packet id."""
    message = {"type": "binary", "content": base64.b64encode(reading).decode(), "client_msg_id": reading_id}
    return client.publish(f"users/{station}/inbox", json.dumps(message), qos=1).mid


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device)
client.username_pw_set(device, password)
client.reconnect_delay_set(1, 30)
client.on_publish = lambda _client, _data, mid, _code, _properties: acknowledged.put(mid)
client.on_connect = lambda client, *_: client.subscribe(f"users/{device}/events")
client.on_message = lambda _client, _data, event: print(event.payload.decode(), file=sys.stderr)  # refusals
client.connect_async(host, int(port), keepalive=20)
client.loop_start()  # connects, and connects again; what was sent and not acknowledged is sent again

sent, last = dict[int, int](), 0  # packet id -> number of the reading; the last number
while True:
    spool.execute("INSERT INTO readings (id, bytes) VALUES (?, ?)", (uuid.uuid4().hex, read_sensor()))
    until = time.monotonic() + INTERVAL
    while (left := until - time.monotonic()) > 0:
        unsent = "SELECT number, id, bytes FROM readings WHERE number > ? ORDER BY number LIMIT ?"
        for number, *reading in spool.execute(unsent, (last, WINDOW - len(sent))).fetchall():
            sent[publish(*reading)] = last = number
        try:
            done = sent.pop(acknowledged.get(timeout=left))
            spool.execute("DELETE FROM readings WHERE number = ?", (done,))
        except queue.Empty:
            break
