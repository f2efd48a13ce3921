"""`dsr bench report`: measurements as an HTML page and as Markdown.

`files` selects rows, `families` groups files, `metrics` chooses the rows that can be compared. `table`, `charts` and
`method` make the parts of a `report`; `page`, `markdown` and `write` write it.
"""
