"""Runs commands that nobody vouches for: without network, with a file system of their own, within limits."""
