"""`dsr bench reason`: accuracy by strategy."""
