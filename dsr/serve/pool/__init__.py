"""The engine processes as the server sees them: which are open, which must wait, which leave."""
