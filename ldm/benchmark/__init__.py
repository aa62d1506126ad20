"""The papers' tables, one command each: what is missing is generated, and everything measured beside the paper."""
