"""HTTP as its standards have it, whatever is asked for: parameters, bodies, conditions, problems."""
