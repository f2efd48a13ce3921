"""What all APIs share: routes, access, limits, errors, metrics."""
