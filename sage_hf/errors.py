"""Errors that are no defect and no mistake of input."""


class PushError(RuntimeError):
    """A push that did not arrive; the message says what happened, and how to go on."""
