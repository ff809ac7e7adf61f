"""The platform's HTTP API: login, tokens, registration, health and readiness."""
