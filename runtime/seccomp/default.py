"""The default profile: what programs in a container need, by purpose; everything else gets EPERM.

Refused are the calls by which containers were left (keyrings, io_uring, userfaultfd, bpf, kexec, handles to files) and
those that change what belongs to the whole machine. A capability brings the calls that it is for, as in Docker's
default, which this one nowhere exceeds; see tests/seccomp. Stricter: sockets of the common families only (not even
with a capability is there one to a hypervisor or the kernel's cryptography), no calls of the x32 ABI, and no call for
which the kernel of today returns an error in any case. As there, what a 32-bit program asks of socketcall(2) can't be
seen by a filter.
"""

from errno import ENOSYS, EPERM

from runtime import linux
from runtime.capabilities import CAPABILITIES
from runtime.seccomp.calls import COMPANIONS
from runtime.seccomp.profile import ALLOW, Compare, Condition, Profile, Rule, errno_action

_FILES = """
    open openat openat2 creat close close_range read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2
    lseek _llseek dup dup2 dup3 fcntl fcntl64 ioctl flock sendfile sendfile64 splice tee vmsplice copy_file_range
    readahead fadvise64 fadvise64_64 fallocate ftruncate ftruncate64 truncate truncate64
    sync syncfs fsync fdatasync sync_file_range cachestat
"""
_NAMES = """
    access faccessat faccessat2 chdir fchdir getcwd mkdir mkdirat rmdir getdents getdents64
    link linkat symlink symlinkat readlink readlinkat rename renameat renameat2 unlink unlinkat mknod mknodat
    name_to_handle_at umask
"""
_ATTRIBUTES = """
    stat lstat fstat stat64 lstat64 fstat64 newfstatat fstatat64 statx statfs fstatfs statfs64 fstatfs64
    chmod fchmod fchmodat fchmodat2 chown fchown lchown chown32 fchown32 lchown32 fchownat
    utime utimes futimesat utimensat utimensat_time64
    getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat
    listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat
"""
_MOUNTS_SEEN = "listmount statmount"
_WATCHES = """
    poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
    eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_settime64 timerfd_gettime
    timerfd_gettime64 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark
    io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64
"""
_MEMORY = """
    brk mmap mmap2 munmap mremap mprotect madvise mincore msync mseal remap_file_pages mlock mlock2 mlockall munlock
    munlockall memfd_create memfd_secret pkey_alloc pkey_free pkey_mprotect map_shadow_stack membarrier
"""
_PROCESSES = """
    fork vfork execve execveat exit exit_group wait4 waitid waitpid set_tid_address gettid getpid getppid
    getpgid getpgrp setpgid getsid setsid prctl arch_prctl set_thread_area get_thread_area modify_ldt restart_syscall
    set_robust_list get_robust_list rseq uretprobe pidfd_open pidfd_send_signal process_mrelease
    futex futex_time64 futex_wait futex_wake futex_requeue futex_waitv
    ptrace process_vm_readv process_vm_writev
"""
_SCHEDULING = """
    sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
    sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval
    sched_rr_get_interval_time64 getpriority setpriority ioprio_get ioprio_set getcpu
    getrlimit ugetrlimit setrlimit prlimit64 getrusage times
"""
_IDENTITY = """
    getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getgroups getgroups32 getresuid getresuid32
    getresgid getresgid32 setuid setuid32 setgid setgid32 setgroups setgroups32 setreuid setreuid32 setregid setregid32
    setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 capget capset
    uname sysinfo getrandom
"""
_SANDBOXES = "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self"
_SIGNALS = """
    kill tkill tgkill pause alarm sigaltstack sigreturn sigprocmask rt_sigreturn rt_sigaction rt_sigprocmask
    rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_sigqueueinfo rt_tgsigqueueinfo
    getitimer setitimer
"""
_TIME = """
    time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep
    clock_nanosleep_time64 nanosleep adjtimex clock_adjtime clock_adjtime64
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
"""
_SOCKETS = """
    socketpair socketcall bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt
    send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
"""
_MESSAGES = """
    pipe pipe2 ipc semget semctl semop semtimedop semtimedop_time64 shmget shmat shmdt shmctl msgget msgsnd msgrcv
    msgctl mq_open mq_unlink mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64 mq_notify
    mq_getsetattr
"""
_EVERYBODY = " ".join(
    (
        *(_FILES, _NAMES, _ATTRIBUTES, _MOUNTS_SEEN, _WATCHES, _MEMORY, _PROCESSES, _SCHEDULING, _IDENTITY),
        *(_SANDBOXES, _SIGNALS, _TIME, _SOCKETS, _MESSAGES),
    )
)
_WITH = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYS_ADMIN": """
        clone clone3 unshare setns mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount
        fspick sethostname setdomainname quotactl quotactl_fd bpf perf_event_open fanotify_init syslog
        lsm_get_self_attr lsm_set_self_attr lsm_list_modules
    """,
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_NICE": "mbind get_mempolicy set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}

_FAMILIES = (
    0,
    1,
    2,
    10,
    16,
    17,
)  # unspecified (refused with the error that it should be), unix, IPv4, IPv6, netlink, packet
_PERSONALITIES = (
    0,  # PER_LINUX
    0x0008,  # PER_LINUX32
    0x2_0000,  # UNAME26
    0x2_0008,
    0xFFFF_FFFF,  # only to ask
)
_NEW_NAMESPACES = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWCGROUP
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUSER
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
)


def default_profile(capabilities: int, arch: str) -> Profile:
    """The profile for a container that has these capabilities."""
    held = {name for number, name in enumerate(CAPABILITIES) if capabilities >> number & 1}
    names = [
        *_EVERYBODY.split(),
        *(name for capability in _WITH if capability in held for name in _WITH[capability].split()),
    ]
    rules = [
        Rule(tuple(dict.fromkeys(names)), ALLOW),
        *(Rule(("socket",), ALLOW, (Condition(0, Compare.EQUAL, family),)) for family in _FAMILIES),
        *(Rule(("personality",), ALLOW, (Condition(0, Compare.EQUAL, value),)) for value in _PERSONALITIES),
    ]
    if "CAP_SYS_ADMIN" not in held:
        rules += [
            Rule(("clone",), ALLOW, (Condition(0, Compare.EQUAL, 0, _NEW_NAMESPACES),)),
            # Its flags are in memory, where no filter can look; ENOSYS makes the C library use clone.
            Rule(("clone3",), errno_action(ENOSYS)),
        ]
    return Profile(errno_action(EPERM), (arch, *COMPANIONS[arch]), tuple(rules))
