"""Tools of MCP servers in a conversation: servers, offered tools, consent, and rounds of calls."""
