"""`dsr bench experts`: how many experts a task needs."""
