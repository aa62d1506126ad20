"""Measurements of the code and of the models that ship, each a command of its own."""
