"""One drawing system: a `Chart` or a `HeatMap` is data, drawn as SVG (`svg`, `heat_map_svg`) or as text (`terminal`,
`heat_map`)."""
