"""How things look at a terminal. The only room that draws."""
