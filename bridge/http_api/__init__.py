"""The platform's HTTP API: logging in, tokens, registration, and whether the node is well."""
