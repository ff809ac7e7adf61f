"""Benchmarks that compare Parley with other MQTT brokers, or with another revision of itself, in one run:
``python -m benchmarks --help``.
"""
