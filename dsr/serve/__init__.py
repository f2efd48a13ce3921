"""`dsr serve`: any model of this machine behind the APIs that programs speak, with votes and thoughts."""
