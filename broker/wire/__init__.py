"""The MQTT codec: bytes to packets and back. Sans-IO. Section numbers refer to MQTT 3.1.1."""
