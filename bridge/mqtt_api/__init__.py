"""The operations over MQTT RPC."""
