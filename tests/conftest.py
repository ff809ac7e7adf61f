"""What holds for all tests."""

from hypothesis import settings

# An example that a busy machine runs slowly is no failure.
settings.register_profile("parley", deadline=None)
settings.load_profile("parley")
