"""The result store: its files, its limit, what in it belongs to nobody."""
