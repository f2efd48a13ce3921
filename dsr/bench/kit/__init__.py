"""What all benches share: conditions, energy, ranges, output files."""
