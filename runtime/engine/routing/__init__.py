"""Two models write one reply: the small one, and the large one where the small one is unsure (R2R).

Fu et al., "R2R: Efficiently Navigating Divergent Reasoning Paths with Small-Large Model Token Routing", arXiv
2505.21600. The paper trains a router; its repository also has one without training (thu-nics/R2R, the settings named
`entropy`), which dsr uses: the large model draws a token if the entropy of the small model's next token is above a
threshold. The text is not the one that the large model alone would write.
"""

from __future__ import annotations

from runtime.engine.routing.routed_backend import RoutedBackend, Router, RouteStatistics

__all__ = ["RouteStatistics", "RoutedBackend", "Router"]
