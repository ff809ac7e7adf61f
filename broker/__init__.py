"""The MQTT broker: sockets in, a durable log in the middle, sockets out."""

VERSION = "0.1.0"
