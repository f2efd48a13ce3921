"""Which type each tensor gets: mixtures and recipes."""
