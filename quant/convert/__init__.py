"""A checkpoint's tensors, names and metadata as llama.cpp's converter writes them."""
