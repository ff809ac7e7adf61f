"""The edge to amqtt: its configuration, its plugins, its events. Nothing else in the broker imports amqtt.

`loading` finds the plugins, `host` keeps them, `gate` asks them, `events` tells them, and `context` is what
they see of the broker. `listeners` reads the section of the configuration that has amqtt's format.
"""
