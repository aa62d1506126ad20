"""The papers' tables, one command each: generate the missing pictures, measure all, report beside the paper."""
