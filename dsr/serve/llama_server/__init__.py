"""The routes of llama-server that are no other API's."""
