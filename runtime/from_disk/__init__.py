"""Runs models that are larger than memory: reads weights from the disk while the model computes."""
