"""Mistakes and failures whose message says what happened, what was expected and what to do.

The command line prints the message without a traceback and ends with `exit_code`: 2 when the
request cannot be right, 1 when the work failed.
"""


class UserError(Exception):
    """The request cannot be right: unknown name or key, bad value, missing file, run in use."""

    exit_code = 2


class DataError(UserError):
    """The images cannot be used as they are; the message names the file and the cure."""

    exit_code = 1


class MissingWeightsError(UserError):
    """A pretrained network is not on this machine; the message names file, checksum and ways.

    Args:
        message: for the user.
        weights: name in the store, for those who can fetch it.
    """

    exit_code = 1

    def __init__(self, message: str, weights: str | None = None) -> None:
        super().__init__(message)
        self.weights = weights


class TrainingError(UserError):
    """Training had to stop: a loss became NaN, the disk is full, memory ran out."""

    exit_code = 1
