"""What a model is here: references, the catalogue, the files on this disk."""
