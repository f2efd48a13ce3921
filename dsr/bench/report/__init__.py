"""What the benches measured, as one page that a browser shows without a network, and as Markdown.

Gathered by file (`gathering`) into families (`families`) whose files are compared by rows that were measured alike
(`comparing`, `aspects`), in tables (`table`) and charts (`charts`); these are laid out (`frame`) and drawn as SVG
(`drawing`), and all of it (`sheet`) is written as HTML (`page`) or Markdown (`markdown`).
"""
