"""The operations over MQTT."""
