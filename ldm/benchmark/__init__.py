"""The papers' tables, one command each: generate the missing pictures, measure all, compare with the paper."""
