"""What a caller is told when something can't be done: Docker's form, `{"message": …}`, and its HTTP statuses."""

from http import HTTPStatus

from runtime.errors import ImageError, PysupError, SeccompError
from supervisor.errors import CommandError, ConflictError, NoSuchContainerError, StackError


class RefusedError(PysupError):
    """A request that is not granted."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def bad(message: str) -> RefusedError:
    """The request makes no sense as it is."""
    return RefusedError(HTTPStatus.BAD_REQUEST, message)


def missing(message: str) -> RefusedError:
    """What it names is not there."""
    return RefusedError(HTTPStatus.NOT_FOUND, message)


def conflict(message: str) -> RefusedError:
    """Not in the state in which things are."""
    return RefusedError(HTTPStatus.CONFLICT, message)


def not_offered(what: str, instead: str) -> RefusedError:
    """Docker has it, pysup does not."""
    return RefusedError(HTTPStatus.NOT_IMPLEMENTED, f"{what} is not offered by pysup: {instead}")


def refusal(error: PysupError) -> RefusedError:
    """Any error of pysup's as one of these."""
    match error:
        case RefusedError():
            return error
        case NoSuchContainerError():
            return missing(_capital(str(error)))
        case ConflictError() | StackError():
            return conflict(str(error))
        case CommandError() | ImageError() | SeccompError():
            return bad(str(error))
    return RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))


def _capital(message: str) -> str:
    """docker-py and others look for Docker's `No such container`."""
    return message[:1].upper() + message[1:]
