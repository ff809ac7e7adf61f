"""What is plugged into the broker: who may do what, and where things are kept."""
