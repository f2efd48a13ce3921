"""The hardware: processors, memory, disks, GPUs, and how fast they are."""
