"""Which device holds which layer, how much memory that takes and how fast it runs. Pure."""
