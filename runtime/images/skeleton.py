"""What every image made here has besides programs: directories, the few files of /etc, terminal descriptions, and the
list of tools that `--tools` takes from the host.
"""

import os
import posixpath

from runtime.images.mirror import Mirror

REQUIRED_TOOL = "sh"
_TOOLS = """
    sh bash busybox
    arch base64 basename cat chgrp chmod chown chroot cksum cp cut date dd df dir dirname du echo env expr factor false
    fold head hostid id install join link ln logname ls md5sum mkdir mkfifo mknod mktemp mv nice nl nohup nproc numfmt
    od paste pathchk pr printenv printf pwd readlink realpath rm rmdir seq sha256sum shuf sleep sort split stat stdbuf
    stty sum sync tac tail tee test timeout touch tr true truncate tty uname uniq unlink users wc who whoami yes [
    awk cmp diff egrep fgrep find grep gunzip gzip hostname less more sed tar which xargs xxd zcat
    clear reset tput
    free pgrep pidof pidwait pkill pmap ps pwdx slabtop sysctl tload top uptime vmstat w watch
    chrt dmesg flock getopt ionice kill lsblk mount mountpoint nsenter prlimit renice setpriv setsid taskset
    umount unshare curl ip nc ss
"""
HOST_TOOLS = tuple(_TOOLS.split())

APP_ID = 1000
_LAYOUT = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # symlinks into /usr on a host that has merged them
_DIRECTORIES = {
    "/dev": 0o755,
    "/etc": 0o755,
    "/home/app": 0o755,
    "/proc": 0o555,
    "/root": 0o700,
    "/run": 0o755,
    "/srv": 0o755,
    "/sys": 0o555,
    "/tmp": 0o1777,  # noqa: S108 (the image's, not ours to write in)
    "/usr/local/bin": 0o755,
    "/var/tmp": 0o1777,  # noqa: S108 (as above)
}
_FILES = {  # the empty ones are where a container shows its own
    "/etc/hosts": "",
    "/etc/hostname": "",
    "/etc/resolv.conf": "",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    "/etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        f"app:x:{APP_ID}:{APP_ID}:app:/home/app:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    ),
    "/etc/group": f"root:x:0:\ntty:x:5:\napp:x:{APP_ID}:\nnogroup:x:65534:\n",
}
_TERMINALS = ("dumb", "linux", "screen", "screen-256color", "tmux", "tmux-256color", "vt100", "xterm", "xterm-256color")
_TERMINFO = ("/etc/terminfo", "/lib/terminfo", "/usr/lib/terminfo", "/usr/share/terminfo")  # terminfo(5)
_LOCALES = ("/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8")  # glibc has it built in from 2.35 on


def add_layout(mirror: Mirror) -> None:
    """The host's top directories, before anything is put into them."""
    for path in filter(posixpath.exists, _LAYOUT):
        mirror.add(path)


def add_surroundings(mirror: Mirror) -> None:
    """Everything else, after the programs: what they brought along stays."""
    for path, mode in _DIRECTORIES.items():
        mirror.add_directory(path, mode)
    mirror.give("/home/app", APP_ID, APP_ID)
    for path, text in _FILES.items():
        mirror.add_text(path, text)
    _add_terminals(mirror)
    _add_locale(mirror)


def _add_terminals(mirror: Mirror) -> None:
    """Filed under the name's first letter, or its code in hexadecimal."""
    for directory in _TERMINFO:
        for name in _TERMINALS:
            for folder in (name[0], f"{ord(name[0]):x}"):
                path = f"{directory}/{folder}/{name}"
                if posixpath.exists(path):
                    mirror.add(path)


def _add_locale(mirror: Mirror) -> None:
    for locale in _LOCALES:
        for directory, _, names in os.walk(locale):
            for name in names:
                mirror.add(posixpath.join(directory, name))
