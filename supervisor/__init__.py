"""pysup's supervisor: when containers run. It knows no system call; `runtime` does."""

__version__ = "0.1.0"
