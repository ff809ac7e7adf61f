"""imctl, the command line of the platform: runs a node and administers it over gRPC."""
