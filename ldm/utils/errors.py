"""The one exception that means "the input is wrong", not "the code is wrong"."""


class UserError(ValueError):
    """Bad input from the person at the keyboard: one line naming the file, key or value and what was expected."""
