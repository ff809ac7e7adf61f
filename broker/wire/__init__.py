"""The MQTT codec: bytes to packets and back. Sans-IO; section numbers are of MQTT 3.1.1."""
