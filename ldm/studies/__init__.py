"""What the studies of the models that ship measure, each with its plot; the commands are in `ldm.cli.studies`."""
