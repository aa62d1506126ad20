"""The papers' tables, one command each: what is missing is generated, all is measured, and reported beside the paper."""
