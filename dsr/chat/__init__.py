"""`dsr chat`: one answer, or a conversation."""
