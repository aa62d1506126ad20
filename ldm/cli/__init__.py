"""The command `ldm`, a module for each verb; only `ldm/__main__.py` and `scripts/` import them."""
