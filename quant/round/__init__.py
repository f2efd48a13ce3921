"""Rounds the weights of a matrix so that errors correct each other, inside the grids of ggml's types."""
