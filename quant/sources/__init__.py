"""What is quantized: checkpoints and GGUF files as named tensors."""
