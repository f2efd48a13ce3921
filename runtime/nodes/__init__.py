"""Several machines: addresses, the RPC server, and a backend that outlives lost nodes."""
