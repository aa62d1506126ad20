"""Commands that measure the code and the shipped models."""
