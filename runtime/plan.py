"""The plan of one run: steps as data, in the order in which they happen.

A step is one thing done between clone and exec (the first, making the directories, before clone). It knows how to say
what it does (`describe()`), and nothing of how: that is `lower.py`. A plan is frozen and complete; nothing is looked up
after it.
"""

from dataclasses import dataclass
from typing import Protocol

from runtime.cgroup.group import Cgroup
from runtime.cgroup.limits import Setting
from runtime.config import Network
from runtime.seccomp.filter import Filter

TTY_GID = 5  # the group of terminals, by which mesg(1) and wall(1) know each other
NOTIFY_PATH = "/dev/notify"  # what NOTIFY_SOCKET of a container that may notify is set to: sd_notify(3)


class Step(Protocol):
    """One thing the child does; see `describe()`."""

    def describe(self) -> str:
        """One line for a user: verb, object, place."""
        ...


@dataclass(frozen=True, slots=True)
class MakeDirectories:
    """Before clone, by the launcher: a place for the overlay that only root can enter."""

    directory: str
    root_mode: int
    root_uid: int
    root_gid: int
    exist_ok: bool  # a kept upper is there already
    again: bool = False  # from an overlay that was volatile

    def describe(self) -> str:
        return f"make upper, work and merged in {self.directory}"


@dataclass(frozen=True, slots=True)
class InCgroups:
    """By which descriptors, counted from `first`, the launcher reaches the places of a cgroup."""

    cgroup: Cgroup
    first: int


@dataclass(frozen=True, slots=True)
class MakeCgroup(InCgroups):
    """Before clone, by the launcher: a directory in each hierarchy."""

    def describe(self) -> str:
        return f"make the cgroup {self.cgroup.path}"


@dataclass(frozen=True, slots=True)
class SetLimit(InCgroups):
    """Before clone, by the launcher: write one of its files."""

    place: int
    setting: Setting

    def describe(self) -> str:
        return f"set limits.{self.setting.key}: write {self.setting.value} to {self.setting.file}"


@dataclass(frozen=True, slots=True)
class HoldDevices(InCgroups):
    """Before clone, by the launcher: the kernel asks a program before it opens a device for the container. See
    devices.py.
    """

    program: bytes

    def describe(self) -> str:
        return "hold devices to being read, or written, only"


@dataclass(frozen=True, slots=True)
class OpenCgroup(InCgroups):
    """Before clone, by the launcher, and the last thing there: where clone3(2) puts the child."""

    def describe(self) -> str:
        return f"open the cgroup {self.cgroup.path}"


@dataclass(frozen=True, slots=True)
class JoinCgroup(InCgroups):
    """The child is cloned into it where it is of version 2, and enters those of version 1 before anything of the
    container's runs. What it sees of cgroups begins there: cgroup_namespaces(7).
    """

    namespace: bool  # of its own; a command in a container enters the container's

    def describe(self) -> str:
        return f"join the cgroup {self.cgroup.path}"


@dataclass(frozen=True, slots=True)
class NewSession:
    """setsid(2); with a terminal on standard input, that becomes the controlling one."""

    terminal: bool

    def describe(self) -> str:
        return "start a session" + (" with the terminal" if self.terminal else "")


@dataclass(frozen=True, slots=True)
class TakeStdio:
    """The descriptors that came with the request become 0, 1 and 2."""

    def describe(self) -> str:
        return "take standard input, output and error"


@dataclass(frozen=True, slots=True)
class CreateAs:
    """What is made from here on belongs to the container's root, who has another id on the host; the host's powers
    stay.
    """

    uid: int
    gid: int

    def describe(self) -> str:
        return f"create files as {self.uid}:{self.gid}, root inside"


@dataclass(frozen=True, slots=True)
class JoinUsers:
    """setns(2) into the user namespace that came with the request, as its root. That is the end of all power over the
    host, and over the other namespaces, which are the host's: nothing can be mounted from here on.
    """

    position: int

    def describe(self) -> str:
        return "join the container's user namespace"


@dataclass(frozen=True, slots=True)
class MountMemory:
    """A tmpfs of the container's own for upper and work."""

    size_bytes: int
    root_mode: int
    root_uid: int
    root_gid: int
    detached: bool = False

    def describe(self) -> str:
        return f"mount a tmpfs of {self.size_bytes} bytes for the upper layer"


@dataclass(frozen=True, slots=True)
class MountOverlay:
    """The image below, the container's own upper above; see Documentation/filesystems/overlayfs.rst.

    Its source, which mount tables show, is the container's directory: a sweep knows its strays by it.
    """

    lowers: tuple[str, ...]
    directory: str
    in_memory: bool  # upper and work are in the tmpfs that is the working directory
    volatile: bool
    userns: int | None = None  # position of the user namespace whose ids image and upper are shown with
    detached: bool = False  # mounted nowhere, until `EnterRoot`

    def describe(self) -> str:
        where = "memory" if self.in_memory else self.directory
        return f"mount overlay of {':'.join(self.lowers)} with its upper in {where}"


@dataclass(frozen=True, slots=True)
class PivotRoot:
    """The overlay becomes the root, the old root is let go: from here on no path leads out."""

    def describe(self) -> str:
        return "pivot root into the overlay"


@dataclass(frozen=True, slots=True)
class EnterRoot:
    """The same without pivot_root(2), in which the kernel looks at every process of the machine (fs/fs_struct.c:
    chroot_fs_refs), and without letting go of a root, for which it waits for all processors. Until now the child was in
    the launcher's mount namespace and has mounted nothing in it. Now it makes its own: a copy of one that has nothing
    but an empty directory. On that comes the overlay, as root. So there is no way out, not even for who can take the
    root away: nothing else was ever in the namespace.
    """

    in_memory: bool

    def describe(self) -> str:
        return "make the overlay the root of a mount namespace of its own"


@dataclass(frozen=True, slots=True)
class MountDev:
    """/dev with the nodes of the OCI runtime specification, pts, shm and mqueue."""

    terminal: bool
    shm_bytes: int
    tty_gid: int  # the group of terminals, as the host calls it

    def describe(self) -> str:
        return "mount /dev"


@dataclass(frozen=True, slots=True)
class EtcFile:
    """A small file of the container's own, in memory."""

    path: str
    contents: bytes


@dataclass(frozen=True, slots=True)
class TakeLinksAway:
    """Symbolic links of the image that lead nowhere, where files of the container's own are to be shown. The
    /etc/resolv.conf of an installed system is often one, to what a service makes in /run.
    """

    paths: tuple[str, ...]

    def describe(self) -> str:
        return f"take {', '.join(self.paths)} away, which leads nowhere"


@dataclass(frozen=True, slots=True)
class ShowFiles:
    """Bind small files over those of the image. They live in the tmpfs of /dev, where their names are taken away
    again.
    """

    files: tuple[EtcFile, ...]

    def describe(self) -> str:
        return f"show {', '.join(file.path for file in self.files)}"


@dataclass(frozen=True, slots=True)
class ShowNotify:
    """Mount the socket that came with the request onto an empty file."""

    terminal: bool  # whose mount came before it

    def describe(self) -> str:
        return f"show the notify socket at {NOTIFY_PATH}"


@dataclass(frozen=True, slots=True)
class MakeDevice:
    """A node of the container's own for a device of the host: what becomes of the node concerns nobody else's."""

    path: str
    mode: int  # with its kind
    number: int
    uid: int
    gid: int
    permissions: str = "rwm"

    def describe(self) -> str:
        return f"make the device {self.path}"


@dataclass(frozen=True, slots=True)
class CloseDev:
    """What is made in /dev from here on is no device, whoever may make nodes. Those that are there are mounted on
    themselves, and stay.
    """

    nodes: tuple[str, ...]

    def describe(self) -> str:
        return "close /dev to other devices"


@dataclass(frozen=True, slots=True)
class ShowBind:
    """Mount what came with the request: a detached copy of a mount of the host's."""

    source: str  # for the user
    target: str
    directory: bool
    position: int

    def describe(self) -> str:
        return f"mount {self.source} at {self.target}"


@dataclass(frozen=True, slots=True)
class MountTmpfs:
    target: str
    flags: int
    options: str

    def describe(self) -> str:
        return f"mount a tmpfs at {self.target}"


@dataclass(frozen=True, slots=True)
class ShowMemory:
    """A file that the next `size` bytes of a descriptor that came with the request are copied to, within the kernel: a
    secret is never in the launcher's memory.
    """

    target: str
    position: int
    size: int
    mode: int
    uid: int
    gid: int

    def describe(self) -> str:
        return f"show {self.target}"


@dataclass(frozen=True, slots=True)
class SetSysctl:
    name: str
    value: str

    def describe(self) -> str:
        return f"set the sysctl {self.name} to {self.value}"


@dataclass(frozen=True, slots=True)
class ReadOnlyRoot:
    """The overlay; what is mounted on it stays as it is."""

    def describe(self) -> str:
        return "make the root read-only"


@dataclass(frozen=True, slots=True)
class MountSys:
    read_only: bool

    def describe(self) -> str:
        return "mount /sys" + (" read-only" if self.read_only else "")


@dataclass(frozen=True, slots=True)
class MountProc:
    def describe(self) -> str:
        return "mount /proc"


@dataclass(frozen=True, slots=True)
class MaskPath:
    """Hide a file or directory behind another one; None: a directory behind an empty tmpfs, one file system more."""

    path: str
    behind: str | None

    def describe(self) -> str:
        return f"mask {self.path}"


@dataclass(frozen=True, slots=True)
class ReadOnlyPaths:
    """Of /proc."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        return f"make {', '.join(self.paths)} read-only"


@dataclass(frozen=True, slots=True)
class SetHostname:
    hostname: str

    def describe(self) -> str:
        return f"set the host name {self.hostname}"


@dataclass(frozen=True, slots=True)
class JoinNetwork:
    """setns(2) into the network namespace that came with the request."""

    position: int

    def describe(self) -> str:
        return "join the container's network"


@dataclass(frozen=True, slots=True)
class LoopbackUp:
    def describe(self) -> str:
        return "bring the loopback interface up"


@dataclass(frozen=True, slots=True)
class SetRlimit:
    resource: int
    name: str
    soft: int
    hard: int

    def describe(self) -> str:
        return f"limit {self.name} to {self.soft}:{self.hard}"


@dataclass(frozen=True, slots=True)
class DropBounding:
    """Take capabilities out of the bounding set: no program run later can gain them."""

    kept: int
    count: int  # how many capabilities this kernel has

    def describe(self) -> str:
        return "drop capabilities from the bounding set"


@dataclass(frozen=True, slots=True)
class NoNewPrivileges:
    def describe(self) -> str:
        return "set no_new_privs"


@dataclass(frozen=True, slots=True)
class InstallSeccomp:
    """From here on, for this process and all that come of it, the filter decides which system calls are made."""

    filter: Filter

    def describe(self) -> str:
        return f"install the seccomp filter of {self.filter.instructions} instructions"


@dataclass(frozen=True, slots=True)
class LetInherit:
    """Before the bounding set is cut: what an init is to have that nobody else gets. What root executes has what is
    inheritable, too, and only what is in the bounding set can be made so: capabilities(7).
    """

    held: int
    inheritable: int

    def describe(self) -> str:
        return "let the init inherit capabilities"


@dataclass(frozen=True, slots=True)
class ForkInit:
    """Fork: process 1 stays behind to reap zombies and forward signals, process 2 goes on to the command. None: with
    the capabilities that it has.
    """

    capabilities: int | None
    inheritable: int = 0  # of these, what it is to have beyond the bounding set

    def describe(self) -> str:
        return "fork the init"


@dataclass(frozen=True, slots=True)
class SetUser:
    uid: int
    gid: int
    groups: tuple[int, ...]

    def describe(self) -> str:
        return f"become user {self.uid}:{self.gid}"


@dataclass(frozen=True, slots=True)
class SetCapabilities:
    """Effective and permitted as given; inheritable and ambient empty."""

    capabilities: int

    def describe(self) -> str:
        return "set capabilities"


@dataclass(frozen=True, slots=True)
class MakeWorkdir:
    """As Docker does: a working directory that the image lacks is made, as root."""

    path: str

    def describe(self) -> str:
        return f"make the working directory {self.path}"


@dataclass(frozen=True, slots=True)
class EnterWorkdir:
    path: str

    def describe(self) -> str:
        return f"enter the working directory {self.path}"


@dataclass(frozen=True, slots=True)
class SetUmask:
    umask: int

    def describe(self) -> str:
        return f"set the umask {self.umask:#o}"


@dataclass(frozen=True, slots=True)
class DieWithSupervisor:
    """PR_SET_PDEATHSIG, then a look whether the supervisor's main thread is still there: it may have died before. Not
    `checked` by who has nothing of ours to look at; it is in a container that has.
    """

    checked: bool = True

    def describe(self) -> str:
        return "tie its life to the supervisor's"


@dataclass(frozen=True, slots=True)
class CloseDescriptors:
    def describe(self) -> str:
        return "close every descriptor but 0, 1 and 2"


@dataclass(frozen=True, slots=True)
class JoinProcesses:
    """Before clone, by the launcher: what it clones next is in the container's pid namespace. It goes back itself."""

    def describe(self) -> str:
        return "join the container's processes"


@dataclass(frozen=True, slots=True)
class EnterNamespaces:
    """setns(2) by the pidfd of the container's process 1: its root becomes ours, and our working directory."""

    flags: int

    def describe(self) -> str:
        return "enter the container"


@dataclass(frozen=True, slots=True)
class HideMemory:
    """Not dumpable until execve, whatever fs.suid_dumpable says of a change of user: until then it has the launcher's
    memory and descriptors, and those in the container can see it (CVE-2016-9962).
    """

    def describe(self) -> str:
        return "hide its memory from the container"


@dataclass(frozen=True, slots=True)
class BecomeEntry:
    """execveat(2) of the calls that follow, as a program of its own, if there is that `file`: nothing else is left of
    the launcher's memory. With the descriptor of a page.
    """

    page: int
    file: int | None

    def describe(self) -> str:
        return "become what enters"


@dataclass(frozen=True, slots=True)
class MapPage:
    """For this process alone: not for those that are cloned from it."""

    def describe(self) -> str:
        return "map a page"


@dataclass(frozen=True, slots=True)
class Pass:
    """Clone into the pid namespace that was joined, another child of the supervisor, whose pid the page tells; who has
    done that ends.
    """

    def describe(self) -> str:
        return "clone into the container"


@dataclass(frozen=True, slots=True)
class KeepOrphans:
    """Its descendants stay its own when their parents end: PR_SET_CHILD_SUBREAPER(2const)."""

    def describe(self) -> str:
        return "keep the orphans of its children"


@dataclass(frozen=True, slots=True)
class Exec:
    """execve(2) of each candidate in turn, as execvp does with the container's own PATH."""

    candidates: tuple[str, ...]
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return f"execute {self.argv[0]}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything one run needs. `steps[:prologue]` happen in the launcher, before clone."""

    id: str
    directory: str | None  # to be removed after the run; None where nothing is on disk
    keep: bool  # the directory stays
    network: Network
    terminal: bool
    init: bool
    prologue: int
    steps: tuple[Step, ...]
    owner: tuple[int, int]  # user and group whom the standard streams belong to
    stdin: bool = False  # its standard input can be written to
    tty_gid: int = TTY_GID
    apart: bool = False  # who sees its process may look into it: what it becomes comes along as a file
    userns: bool = False  # it joins one, and the network that this owns
    own_mounts: bool = False  # it makes its mount namespace itself
    cgroup: Cgroup | None = None  # the descriptors of its places go along, after all others
