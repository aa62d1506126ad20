"""The one exception that means "the input is wrong", not "the code is wrong"."""


class UserError(ValueError):
    """Bad input from the person at the keyboard: one line naming the file, key or value and what was expected.

    It stays one line when it crosses a process border: a DataLoader raises a worker's error anew as the worker's whole
    traceback, of which the message is what stands behind the exception's name in the last place.

    Attributes:
        exit_code: what a script ends with.
    """

    exit_code = 2

    def __init__(self, message: str):
        _, _, own = message.rpartition(f"{__name__}.{type(self).__qualname__}: ")
        super().__init__(own.strip() if "\nOriginal Traceback" in message else message)
