"""`dsr quantize` and `dsr imatrix`: from weights to a smaller file."""
