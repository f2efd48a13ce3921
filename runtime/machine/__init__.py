"""The hardware: CPU, memory, disk and GPUs, and how fast they are."""
