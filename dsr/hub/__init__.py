"""The Hugging Face hub: listings, downloads, the shared cache."""
