"""`dsr bench all`: size, loss, accuracy, speed and memory of each file, then strategies and pruning.

`request` says what to measure of each model, `files` makes the files of its recipes, `bench` measures step by step,
`parts` saves each finished part, `result` is what was found, `claims` compares it with published results, and `tables`
and `document` show it.
"""
