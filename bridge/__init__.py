"""The IM services on top of the broker: one handler per operation, and three APIs that call them (MQTT
RPC, gRPC, HTTP)."""
