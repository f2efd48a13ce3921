"""The story of `dsr plan`: read a header, decide where everything goes, say it; or say what would run at all."""
