"""The files of the original codes, translated: their configs (`configs.py`), each code by a table of its own."""
