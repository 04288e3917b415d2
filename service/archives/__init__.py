"""A job's images as one file: each format is a function of byte ranges, its length known in advance."""
