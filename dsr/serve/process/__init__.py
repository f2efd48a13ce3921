"""What runs inside an engine process: one loaded model that answers many clients."""
