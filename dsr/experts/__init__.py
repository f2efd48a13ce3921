"""Profiling, pruning and choosing the experts of a mixture of experts."""
