"""The composition root: the only package that names broker, bridge and plugins together."""
