"""The handlers of the operations, one module for each subject. Their docstrings are docs/api.md."""
