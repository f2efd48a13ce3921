"""llama-server's own routes: completions of plain text, tokens, the template, properties (tools/server/README.md)."""
