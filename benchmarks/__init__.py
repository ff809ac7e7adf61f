"""Compare Parley with other MQTT brokers, or with itself at another revision, in one run:
``python -m benchmarks --help``.
"""
