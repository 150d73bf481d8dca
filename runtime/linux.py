"""The kernel, as seen from Python: numbers, structures, and one thin wrapper per system call that the standard library
lacks.

Rules: the only module that touches ctypes (a test holds this); no policy, no retries; a failure is an OSError that
carries the path. It is loaded into the launcher, whose memory every container start copies page tables of: so it
imports nothing but `os`, `struct` and `ctypes`, and defines plain integers where an enum would read nicer.

Order: numbers of system calls, constants by subject, structures, the foreign functions, wrappers.
Sources: man pages section 2 of the calls named, and the kernel's include/uapi.
"""

import ctypes
import mmap
import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# --- numbers of the system calls (arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h)

_NUMBERS = {  # name: (x86_64, every newer architecture)
    "bpf": (321, 280),
    "capset": (126, 91),
    "chdir": (80, 49),
    "chroot": (161, 51),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close": (3, 57),
    "close_range": (436, 436),
    "dup3": (292, 24),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fcntl": (72, 25),
    "memfd_create": (319, 279),
    "exit_group": (231, 94),
    "fchdir": (81, 50),
    "fchownat": (260, 54),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "futex": (202, 98),
    "inotify_add_watch": (254, 27),
    "inotify_init1": (294, 26),
    "inotify_rm_watch": (255, 28),
    "ioctl": (16, 29),
    "kill": (62, 129),
    "madvise": (28, 233),
    "mkdirat": (258, 34),
    "mmap": (9, 222),
    "mknodat": (259, 33),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "mprotect": (10, 226),
    "openat": (257, 56),
    "openat2": (437, 437),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "ppoll": (271, 73),
    "getsockopt": (55, 209),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "read": (0, 63),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigtimedwait": (128, 137),
    "seccomp": (317, 277),
    "sendfile": (40, 71),
    "set_robust_list": (273, 99),
    "setfsgid": (123, 152),
    "setfsuid": (122, 151),
    "setgroups": (116, 159),
    "sethostname": (170, 161),
    "fstatfs": (138, 44),
    "setns": (308, 268),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "setsid": (112, 157),
    "signalfd4": (289, 74),
    "socket": (41, 198),
    "symlinkat": (266, 36),
    "umask": (95, 166),
    "unlinkat": (263, 35),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "wait4": (61, 260),
    "write": (1, 64),
}
MACHINE = os.uname().machine


def kernel_version(release: str | None = None) -> tuple[int, int]:
    """Major and minor, of this kernel if no other's release is given: uname(2). ValueError if that is none."""
    release = release or os.uname().release
    major, _, rest = release.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if not (major.isdecimal() and minor):
        raise ValueError(f"no kernel's release: {release}")
    return int(major), int(minor)


NR = {name: old if MACHINE == "x86_64" else new for name, (old, new) in _NUMBERS.items()}

# --- clone and namespaces: clone(2), clone3(2) -----------------------------------------------------------

CLONE_VM = 0x100
CLONE_VFORK = 0x4000
CLONE_PARENT = 0x8000
CLONE_PARENT_SETTID = 0x10_0000
CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000
CLONE_INTO_CGROUP = 0x2_0000_0000
SIGCHLD = 17

# --- mounts: mount(2), umount2(2), open_tree(2), move_mount(2) -------------------------------------------

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000
MS_SLAVE = 0x8_0000
MNT_DETACH = 2
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 1
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x10_0000

# --- files -----------------------------------------------------------------------------------------------

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_REMOVEDIR = 0x200
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
S_IFREG = 0o100000
S_IFCHR = 0o020000
DEVPTS_SUPER_MAGIC = 0x1CD1
RESOLVE_NO_XDEV = 0x1
RESOLVE_NO_MAGICLINKS = 0x2
RESOLVE_NO_SYMLINKS = 0x4
RESOLVE_BENEATH = 0x8
RESOLVE_IN_ROOT = 0x10
CLOSE_RANGE_CLOEXEC = 4
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_EXEC = 1, 2, 0x10  # memfd_create(2)
F_ADD_SEALS = 1033  # fcntl(2)
F_SEALS = 0xF  # none more, and neither shrink, grow nor write
POLLIN = 1

# --- processes: prctl(2), capabilities(7), getrlimit(2) --------------------------------------------------

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_GET_SECUREBITS, PR_SET_SECUREBITS = 27, 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
SECBIT_NO_SETUID_FIXUP = 4  # capabilities(7)
SECCOMP_SET_MODE_FILTER = 1  # seccomp(2)
SIGKILL = 9
CAPABILITY_VERSION_3 = 0x20080522
RLIMIT_NOFILE = 7
FUTEX_CMP_REQUEUE = 4
MADV_DONTFORK = 10  # madvise(2)
RLIM_INFINITY = (1 << 64) - 1
P_ALL = 0

# --- terminals and interfaces: ioctl_tty(2), netdevice(7) ------------------------------------------------

TIOCSCTTY = 0x540E
TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
AF_INET = 2
SOCK_DGRAM = 2
SOCK_CLOEXEC = 0o2000000

# --- structures ------------------------------------------------------------------------------------------

CLONE_ARGS = struct.Struct("=11Q")  # struct clone_args, to its third version (88 bytes)
OPEN_HOW = struct.Struct("=3Q")  # struct open_how
MOUNT_ATTR = struct.Struct("=4Q")  # struct mount_attr: to set, to clear, propagation, user namespace
POLLFD = struct.Struct("=ihh")
TIMESPEC = struct.Struct("=qq")
ROBUST_HEAD_BYTES = 24  # struct robust_list_head: first entry, where its word lies from there, one that is pending
ROBUST_LIST = struct.Struct("=QqQQI")  # the head, and its only entry: the next one, which is the head; its word
ROBUST_WORD = 32
RLIMIT64 = struct.Struct("=2Q")
IFREQ_FLAGS = struct.Struct("=16sh22x")
GID = struct.Struct("=I")
# bpf(2), as much of its union as is used
BPF_PROG_LOAD, BPF_PROG_ATTACH = 5, 8
BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE = 15, 6
BPF_F_ALLOW_MULTI = 2  # others above us may have theirs, which are asked as well
BPF_LOAD = struct.Struct("=2I2Q16x")  # type, count, instructions, licence; no log
BPF_ATTACH = struct.Struct("=4I")  # cgroup, program, where, flags

SOCK_FPROG = struct.Struct("=H6xQ")  # struct sock_fprog: how many instructions, where
CAP_HEADER = struct.Struct("=Ii")
CAP_DATA = struct.Struct("=6I")  # effective, permitted, inheritable: low words, then high words


def cap_data(effective: int, permitted: int, inheritable: int = 0) -> bytes:
    """`struct __user_cap_data_struct[2]` for capset(2), from bit masks."""
    low = 0xFFFF_FFFF
    return CAP_DATA.pack(
        effective & low, permitted & low, inheritable & low, effective >> 32, permitted >> 32, inheritable >> 32
    )


# --- foreign functions -----------------------------------------------------------------------------------
# PyDLL: the interpreter's lock stays held. Our processes that call through it have one thread or must not switch in
# between, and a child made by a raw clone must not meet a lock that a thread of its parent held.

_libc = ctypes.PyDLL(None)
syscall = _libc.syscall
syscall.restype = ctypes.c_long
# The number, six arguments, and a word more: a program's record has eight, and the C library ignores the last.
syscall.argtypes = [ctypes.c_long] * 8
_errno_location = _libc["__errno_location"]
_errno_location.restype = ctypes.c_void_p


def errno_cell() -> ctypes.c_int:
    """This thread's errno as a live object: `.value` is what the last failed call left (errno(3))."""
    return ctypes.c_int.from_address(_errno_location())


def address_of(memory: bytearray) -> int:
    """Where `memory` lies; valid while it is alive and not resized."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def raw(name: str, *args: int) -> int:
    """The system call `name`: its result, or -1 with `errno_cell()` set."""
    result: int = syscall(NR[name], *args, *(0,) * (7 - len(args)))
    return result


def _call(name: str, path: str | bytes | None, *args: int) -> int:
    result = raw(name, *args)
    if result < 0:
        code = errno_cell().value
        raise OSError(code, os.strerror(code), path)
    return result


def _pointer(text: str | bytes | None) -> tuple[int, object]:
    """(address, owner) of a NUL-terminated path; the owner must outlive the call."""
    if text is None:
        return 0, None
    memory = bytearray(os.fsencode(text) + b"\0")
    return address_of(memory), memory


if TYPE_CHECKING:
    Function = Callable[[int], int]


def executable(memory: mmap.mmap) -> "Function":
    """Machine code in `memory` as a function from one word to one; never unmapped. OSError where that is not
    allowed.
    """
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    _call("mprotect", None, address, len(memory), mmap.PROT_READ | mmap.PROT_EXEC)
    _kept.append(memory)
    return ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(address)


_kept: list[mmap.mmap] = []


# --- wrappers --------------------------------------------------------------------------------------------


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    pointers = [_pointer(text) for text in (source, target, kind, data)]
    _call("mount", target, pointers[0][0], pointers[1][0], pointers[2][0], flags, pointers[3][0])


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    address, _owner = _pointer(target)
    _call("umount2", target, address, flags)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    (new, _new_owner), (old, _old_owner) = _pointer(new_root), _pointer(put_old)
    _call("pivot_root", new_root, new, old)


def unshare(flags: int) -> None:
    """unshare(2) (os.unshare exists from Python 3.12 on)."""
    _call("unshare", None, flags)


def unshare_unlocked(flags: int) -> None:
    """unshare(2), while other threads go on: a network namespace takes the kernel most of a millisecond."""
    if ctypes.CDLL(None, use_errno=True).unshare(flags) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def setns(descriptor: int, flags: int) -> None:
    """setns(2): the calling thread enters namespaces; `descriptor` is one of them, or a pidfd of who is in them.
    (os.setns exists from Python 3.12 on.)
    """
    _call("setns", None, descriptor, flags)


def getsockopt(descriptor: int, level: int, option: int, value: bytearray) -> None:
    """getsockopt(2) of an option that reads a question in `value`, and puts its answer there."""
    length = bytearray(struct.pack("=I", len(value)))
    _call("getsockopt", None, descriptor, level, option, address_of(value), address_of(length))


def prctl(option: int, value: int = 0) -> int:
    """prctl(2), for the options that take one number."""
    return _call("prctl", None, option, value)


def install_filter(code: bytes, flags: int = 0) -> None:
    """seccomp(2): this process's system calls go through the filter `code`, struct sock_filter[], from here on."""
    instructions = bytearray(code)
    program = bytearray(SOCK_FPROG.pack(len(code) // 8, address_of(instructions)))
    _call("seccomp", None, SECCOMP_SET_MODE_FILTER, flags, address_of(program))


def signalfd(number: int) -> int:
    """signalfd(2): a descriptor, non-blocking, readable while the blocked signal `number` is pending."""
    mask = bytearray((1 << number - 1).to_bytes(8, "little"))
    return _call("signalfd4", None, -1, address_of(mask), len(mask), os.O_NONBLOCK | os.O_CLOEXEC)


IN_MODIFY = 0x2
INOTIFY_EVENT = struct.Struct("iIII")  # wd, mask, cookie, length of the name that follows


def leave_word(page: int, thread: int) -> None:
    """set_robust_list(2): the word at ROBUST_WORD of a file is the id of the calling thread until that ends; the kernel
    changes it then, before it gives the thread's children away and sends them their PR_SET_PDEATHSIG (kernel/exit.c:
    exit_mm, exit_notify). The list takes the place of the C library's, of robust mutexes, which Python has none of.
    """
    head = map_shared(page, mmap.PROT_READ | mmap.PROT_WRITE)
    entry = head + ROBUST_HEAD_BYTES
    os.pwrite(page, ROBUST_LIST.pack(entry, ROBUST_WORD - ROBUST_HEAD_BYTES, 0, head, thread), 0)
    _call("set_robust_list", None, head, ROBUST_HEAD_BYTES)


def map_shared(descriptor: int, protection: int = mmap.PROT_READ) -> int:
    """mmap(2): where the first page of a file is from now on, shared; never unmapped."""
    return _call("mmap", None, 0, mmap.PAGESIZE, protection, mmap.MAP_SHARED, descriptor, 0)


IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000
INOTIFY_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows


def inotify_init() -> int:
    """inotify_init1(2): a descriptor, non-blocking, readable when something has happened."""
    return _call("inotify_init1", None, os.O_NONBLOCK | os.O_CLOEXEC)


def inotify_add_watch(descriptor: int, path: str, mask: int) -> int:
    """inotify_add_watch(2): the watch's number, the same for the same file; `mask` takes IN_* bits."""
    address, _owner = _pointer(path)
    return _call("inotify_add_watch", path, descriptor, address, mask)


def inotify_rm_watch(descriptor: int, watch: int) -> None:
    """inotify_rm_watch(2)."""
    _call("inotify_rm_watch", None, descriptor, watch)


def set_command_line(title: bytes) -> None:
    """Overwrite what /proc/PID/cmdline shows: a container's init must not tell of the host's paths
    (proc_pid_cmdline(5)).
    """
    start, end = _argument_area()
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, title, min(len(title), end - start - 2))
    ctypes.memset(end - 1, 1, 1)  # no NUL at the end: what counts is up to the first (fs/proc/base.c: get_mm_proctitle)


def _argument_area() -> tuple[int, int]:
    if not _arguments:
        with open("/proc/self/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        _arguments.extend(
            (int(fields[45]), int(fields[46]))
        )  # arg_start, arg_end: fields 48 and 49 of proc_pid_stat(5)
    return _arguments[0], _arguments[1]


_arguments: list[int] = []


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2): a descriptor of a mount, or with OPEN_TREE_CLONE of a detached copy of it."""
    address, _owner = _pointer(path)
    return _call("open_tree", path, dirfd, address, flags)


def move_mount(from_fd: int, target: str | int) -> None:
    """move_mount(2): attach the detached mount `from_fd` at `target`, a path or a descriptor."""
    empty, _empty_owner = _pointer("")
    if isinstance(target, int):
        flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
        _call("move_mount", None, from_fd, empty, target, empty, flags)
        return
    address, _owner = _pointer(target)
    _call("move_mount", target, from_fd, empty, AT_FDCWD, address, MOVE_MOUNT_F_EMPTY_PATH)


def make_private(tree: int, attributes: int) -> None:
    """mount_setattr(2) on the mount `tree`: MOUNT_ATTR_* to set; what is mounted on it is seen nowhere else."""
    mount_setattr(tree, attributes, MS_PRIVATE)


def mount_setattr(
    tree: int, attributes: int, propagation: int, *, recursive: bool = False, userns: int | None = None
) -> None:
    """mount_setattr(2) on the mount `tree`, and on those below it: MOUNT_ATTR_* to set, MS_PRIVATE or MS_SLAVE, and the
    user namespace whose ids it is to have.
    """
    mapped = 0 if userns is None else MOUNT_ATTR_IDMAP
    wanted = bytearray(MOUNT_ATTR.pack(attributes | mapped, 0, propagation, userns or 0))
    empty, _owner = _pointer("")
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _call("mount_setattr", None, tree, empty, flags, address_of(wanted), len(wanted))


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); `resolve` takes RESOLVE_* bits."""
    how = bytearray(OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve))
    address, _owner = _pointer(path)
    return _call("openat2", path, dirfd, address, address_of(how), OPEN_HOW.size)


def filesystem_type(descriptor: int) -> int:
    """fstatfs(2): the magic number of the file system that it is on."""
    buffer = bytearray(256)  # struct statfs has 120 bytes; its first word is f_type
    _call("fstatfs", None, descriptor, address_of(buffer))
    return int.from_bytes(buffer[:8], sys.byteorder)


def detached_mount(kind: str, options: dict[str, str], attributes: int) -> int:
    """fsopen(2), fsconfig(2), fsmount(2): a descriptor of a new mount that is attached nowhere."""
    name, _name_owner = _pointer(kind)
    context = _call("fsopen", kind, name, FSOPEN_CLOEXEC)
    try:
        for key, value in options.items():
            (key_at, _key_owner), (value_at, _value_owner) = _pointer(key), _pointer(value)
            _call("fsconfig", kind, context, FSCONFIG_SET_STRING, key_at, value_at, 0)
        _call("fsconfig", kind, context, FSCONFIG_CMD_CREATE, 0, 0, 0)
        return _call("fsmount", kind, context, FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def executable_file(name: str, contents: bytes) -> int:
    """memfd_create(2): a program in memory, sealed: nobody can change it."""
    address, _owner = _pointer(name)
    flags = MFD_CLOEXEC | MFD_ALLOW_SEALING
    try:
        descriptor = _call("memfd_create", name, address, flags | MFD_EXEC)
    except OSError:  # Linux before 6.3 knows no such flag, and needs none
        descriptor = _call("memfd_create", name, address, flags)
    try:
        os.write(descriptor, contents)
        _call("fcntl", name, descriptor, F_ADD_SEALS, F_SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
