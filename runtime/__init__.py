"""pysup's container runtime: how one container is made. It knows nothing of YAML, anyio, restarts or stacks."""
