"""Routes by resource: each parses, calls one function and returns."""
