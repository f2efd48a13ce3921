"""Pruning experts: profiles, what to keep, the pruned file."""
