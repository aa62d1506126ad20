"""The machinery of a training run: starting, saving, resuming, monitoring, stopping."""
