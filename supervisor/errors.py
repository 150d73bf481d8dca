"""What the supervisor says when something is wrong. See runtime.errors for the root of the family."""

from runtime.errors import PysupError

TYPE_CHECKING = False  # not typing's: whoever says little to a user has no time to load it
if TYPE_CHECKING:
    from collections.abc import Iterable

    from supervisor.spec.faults import Fault


class SpecError(PysupError):
    """A spec with faults: all of them, in the order of the file, one line each."""

    def __init__(self, faults: "Iterable[Fault | str]") -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


class StackError(PysupError):
    """A stack can't be run here and now: it runs already, its state directory can't be used, this is not root."""


class GoneError(StackError):
    """Nobody listens at its control socket."""


class CommandError(PysupError):
    """Something that was asked of a running stack can't be done."""


class NoSuchContainerError(CommandError):
    """No container of that name."""


class ConflictError(CommandError):
    """Not in the state in which it is."""
