"""`dsr bench quality`: the loss of a file against its source."""
