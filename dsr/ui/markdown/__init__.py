"""Markdown of a model as text for a terminal, while it arrives."""
