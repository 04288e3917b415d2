"""What people touch: the `masan` command and the Python client."""
