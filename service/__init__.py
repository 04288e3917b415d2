"""The HTTP process: requests in, jobs out. Never imports torch."""
