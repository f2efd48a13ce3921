"""Errors, events, files and the types that all rooms share."""
