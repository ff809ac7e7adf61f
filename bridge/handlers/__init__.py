"""The operations' handlers, one module for each subject."""
