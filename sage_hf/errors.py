"""Errors that are no defect, and that a command explains without a traceback."""


class PushError(RuntimeError):
    """A push that did not arrive; the message says what happened, and how to go on."""


class LossError(ValueError):
    """A loss or a gradient that is no number any more; the message names the step, the terms and the rows."""
