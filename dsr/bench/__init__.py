"""`dsr bench`: measures model files. One folder for each bench; `kit` is what they share."""
