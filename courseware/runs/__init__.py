"""Training runs: whether one is normal, what is wrong if not, and the recorded runs that answer this."""
