"""The platform's API for back-end services and imctl: protobuf package `im` over gRPC."""
