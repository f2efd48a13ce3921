"""Shared by all benches: conditions, energy, ranges, intervals, tables, files."""
