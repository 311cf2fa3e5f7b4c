"""The errors that a capture raises on purpose. Each message is one sentence that says what to do.

The command line prints the message and ends with `exit_status`; the add-on shows it as a report.
Touches nothing.
"""


class CaptureError(Exception):
    """The request cannot be carried out as it is: a file, an option or the weights are wrong."""

    exit_status = 2


class NoFaceError(CaptureError):
    """The picture could be read, but no face was found in it."""

    exit_status = 3


class CaptureCancelled(CaptureError):
    """The user asked to stop."""

    exit_status = 130
