"""The best file of a given size, from measured losses."""
