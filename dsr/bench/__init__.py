"""Measuring model files: speed, quality, and what the rows of all benches say beside each other."""
