"""imctl: the command line of the platform."""
