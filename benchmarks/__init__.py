"""Compare Parley with other MQTT brokers in one run: ``python -m benchmarks --help``."""
