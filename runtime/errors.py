"""What pysup says when something is wrong: one family, each message one line a user can act on."""


class PysupError(Exception):
    """The root of all errors shown to a user: lowercase, names the object, the place and what to do."""

    exit_status = 125


class ImageError(PysupError):
    """An image can't be found, read or made."""


class UserError(PysupError):
    """A user or group can't be found in the image."""


class CgroupError(PysupError):
    """A control group can't be made, or a limit not be enforced."""


class SeccompError(PysupError):
    """A seccomp profile can't be read, or means what can't be had here."""


class LaunchError(PysupError):
    """A run could not be started. `detail` is the message without the container's name before it."""

    def __init__(self, detail: str, exit_status: int = 125, *, container: str | None = None) -> None:
        super().__init__(f"{container}: {detail}" if container else detail)
        self.detail = detail
        self.exit_status = exit_status


class LauncherLostError(LaunchError):
    """The launcher died before it answered."""
