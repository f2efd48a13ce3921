"""`dsr bench history` and `compare`: measurements over time."""
