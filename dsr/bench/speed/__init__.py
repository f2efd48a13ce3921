"""`dsr bench speed`: tokens per second and memory."""
