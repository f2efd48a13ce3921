"""`dsr chat --batch FILE`: many questions, one open model."""
