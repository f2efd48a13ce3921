"""Where every layer goes, how much memory it takes and how fast it runs. Pure."""
