"""What the command `ldm` does, a module for each verb; nothing imports them but `ldm/__main__.py` and `scripts/`."""
