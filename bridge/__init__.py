"""The IM services on top of the broker: RPC handlers, the gRPC API, administration."""
