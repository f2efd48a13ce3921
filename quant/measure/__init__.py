"""Running text through a model: calibration, importance, divergence."""
