"""dsr's own routes, which its page uses."""
