"""The platform's gRPC API (protobuf package `im`) for back-end services and imctl."""
