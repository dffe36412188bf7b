"""The keeper: a small process that outlives the server, with what kernels have sent."""
