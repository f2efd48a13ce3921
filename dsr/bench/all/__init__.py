"""`dsr bench all`: the whole row of each file: size, loss, accuracy, speed and memory; then strategies and pruning.

What is wanted of each model (`request`), measured step by step (`work`) with the files that recipes make (`files`),
kept part by part (`parts`), gathered (`result`), held against the papers' tables (`orderings`) and told (`report`).
"""
