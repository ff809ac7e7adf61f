"""The platform's own plugins: authentication and topic rules, and persistence."""
