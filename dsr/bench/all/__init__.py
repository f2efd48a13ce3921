"""`dsr bench all`: size, loss, accuracy, speed and memory of each file, then strategies and pruning.

`request`: what to measure of each model. `files`: quantizes with the recipes. `bench`: measures step by step. `parts`:
saves each finished part. `rows`: the result. `claims`: compares it with published results. `tables`: shows it.
"""
