"""Which steps put a container into its user namespace, and who owns what it has.

The child does all its work as the host's root; what it creates belongs to the container's root from the beginning
(`CreateAs`), and image and upper are shown with the container's ids. When all is mounted it joins the user namespace,
as its root, and what follows is as without. So the mount, pid, ipc, uts and cgroup namespaces are the host's: root
inside has no power over them (a mount namespace that it may mount in, it must make itself), and only the network is its
own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from runtime import linux, plan
from runtime.idmap import Ids
from runtime.mounts import Bind, Mount


@dataclass(frozen=True, slots=True)
class Users:
    """Of a plan. `position` is that of the user namespace among the descriptors."""

    ids: Ids | None = None
    position: int = 0

    @property
    def count(self) -> int:
        """How many descriptors come along."""
        return int(self.ids is not None)

    @property
    def userns(self) -> int | None:
        return None if self.ids is None else self.position

    @property
    def tty_gid(self) -> int:
        return self.owner(0, plan.TTY_GID)[1]

    def owner(self, uid: int, gid: int) -> tuple[int, int]:
        """What the host calls them."""
        return (uid, gid) if self.ids is None else self.ids.outside(uid, gid)

    def created(self, uid: int, gid: int) -> tuple[int, int]:
        """For who gives away what he has created: 0, 0 is nobody else than he."""
        return (0, 0) if (uid, gid) == (0, 0) else self.owner(uid, gid)

    def mounts(self, mounts: Sequence[Mount]) -> tuple[Mount, ...]:
        """Owners as the host calls them."""
        return tuple(each if isinstance(each, Bind) else _owned(each, self) for each in mounts)

    def device(self, node: plan.MakeDevice) -> plan.MakeDevice:
        uid, gid = self.created(node.uid, node.gid)
        return replace(node, uid=uid, gid=gid)

    def begin(self) -> list[plan.Step]:
        """Before the first mount."""
        if self.ids is None:
            return []
        return [plan.CreateAs(*self.ids.outside(0, 0))]

    def join(self, limits: Sequence[plan.Step]) -> list[plan.Step]:
        """When all is mounted. Limits come before: to raise one takes a power over the host."""
        return [] if self.ids is None else [*limits, plan.JoinUsers(self.position)]


def _owned(mount: Mount, users: Users) -> Mount:
    assert not isinstance(mount, Bind)
    uid, gid = users.owner(mount.uid, mount.gid)
    return replace(mount, uid=uid, gid=gid)


@contextmanager
def creating_as(ids: Ids | None) -> Iterator[None]:
    """What this thread creates in here belongs to the container's root: who has no id in an upper that is shown with
    other ids can't create anything there. The host's powers stay. See `CreateAs`.
    """
    if ids is None:
        yield
        return
    before = linux.prctl(linux.PR_GET_SECUREBITS)
    uid, gid = ids.outside(0, 0)
    linux.prctl(linux.PR_SET_SECUREBITS, before | linux.SECBIT_NO_SETUID_FIXUP)
    try:
        linux.raw("setfsgid", gid)
        linux.raw("setfsuid", uid)
        yield
    finally:
        linux.raw("setfsuid", 0)
        linux.raw("setfsgid", 0)
        linux.prctl(linux.PR_SET_SECUREBITS, before)
