"""The edge to amqtt: its configuration, its plugins, its events. Nothing else imports amqtt."""
