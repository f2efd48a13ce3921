"""Carrying out a plan: resumable, never a half-written file."""
