"""The sandbox of chat templates: what they may do, what it costs, and how much one rendering may spend."""
