"""Studies of the models that ship, with their plots; the commands are in `ldm.cli.studies`."""
