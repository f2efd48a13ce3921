"""Shared by all benches: conditions, energy, ranges, tables, output files, folders of results."""
