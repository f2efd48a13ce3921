"""From a model's files to an engine that answers: place, open, warm up."""
