"""The evaluation commands of Paint by Example, under its names."""
