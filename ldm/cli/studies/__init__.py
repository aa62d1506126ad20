"""Commands that measure the code and the models that ship."""
