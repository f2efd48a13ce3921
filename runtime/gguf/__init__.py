"""GGUF files: a strict header check, and what a model says about itself."""
