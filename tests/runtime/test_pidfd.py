"""A process that is there has a descriptor; one that is gone, or as good as gone, has none."""

import errno
import os

import pytest

from runtime import pidfd


def test_a_process_has_a_descriptor() -> None:
    descriptor = pidfd.opened(os.getpid())
    assert descriptor is not None
    os.close(descriptor)


def test_a_process_that_was_reaped_has_none() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    assert pidfd.opened(pid) is None


@pytest.mark.parametrize("code", [errno.ESRCH, errno.EINVAL])
def test_one_that_is_being_reaped_has_none_whatever_the_kernel_calls_that(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "pidfd_open", failing(code))
    assert pidfd.opened(1) is None


def test_want_of_descriptors_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pidfd_open", failing(errno.EMFILE))
    with pytest.raises(OSError, match="EMFILE"):
        pidfd.opened(1)


def failing(code: int) -> object:
    def fail(_pid: int) -> int:
        raise OSError(code, errno.errorcode[code])

    return fail
