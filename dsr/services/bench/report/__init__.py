"""What the benches measured, as one page that a browser shows without a network, and as Markdown.

Gathered (`gathering`) into a table (`table`) and charts (`charts`), the charts drawn as SVG (`drawing`), all of it
written as HTML (`page`) or Markdown (`markdown`).
"""
