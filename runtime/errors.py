"""What pysup says when something is wrong: one family, each message one line a user can act on."""


class PysupError(Exception):
    """The root of all errors shown to a user: lowercase, names the object, the place and what to do."""

    exit_status = 125


class ImageError(PysupError):
    """An image can't be found, read or made."""


class UserError(PysupError):
    """A user or group can't be found in the image."""
