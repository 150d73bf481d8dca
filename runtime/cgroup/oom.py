"""Kills for want of memory, told as they happen: of both versions by one descriptor that can be waited on.

Version 2 changes memory.events, which inotify(7) tells of; one inotify descriptor does for all. Version 1 has an
eventfd(2) for each cgroup (Documentation/admin-guide/cgroup-v1/memory.rst, section 10), which it signals *before* it
kills, and once more when the cgroup is removed: who is told looks at the count, and looks again.
"""

import os
import select
from contextlib import suppress

from runtime import linux
from runtime.cgroup.files import write
from runtime.cgroup.group import Cgroup

TOLD_MAX = 64  # cgroups in one look; the others are there at the next
NOTES_MAX_BYTES = 4096


class OomWatch:
    """The cgroups that are watched. `ready` never waits."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._notes = -1  # inotify's, once there is something of version 2
        self._by_event: dict[int, Cgroup] = {}  # eventfds of version 1
        self._by_note: dict[int, Cgroup] = {}  # inotify's numbers

    def fileno(self) -> int:
        """Readable when `ready` has something."""
        return self._epoll.fileno()

    def add(self, cgroup: Cgroup) -> bool:
        """Watch a cgroup that has been made. False if its memory is not kept. OSError."""
        index = cgroup.index_of("memory")
        if index is None:
            return False
        if cgroup.places[index].version == 2:
            self._note(cgroup, cgroup.directory(index))
        else:
            self._listen(cgroup, cgroup.directory(index))
        return True

    def _note(self, cgroup: Cgroup, directory: str) -> None:
        if self._notes < 0:
            self._notes = linux.inotify_init()
            self._epoll.register(self._notes, select.EPOLLIN)
        self._by_note[linux.inotify_add_watch(self._notes, f"{directory}/memory.events", linux.IN_MODIFY)] = cgroup

    def _listen(self, cgroup: Cgroup, directory: str) -> None:
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            write(f"{directory}/cgroup.event_control", f"{event} {control}")
            self._epoll.register(event, select.EPOLLIN)
        except BaseException:
            os.close(event)
            raise
        finally:
            os.close(control)
        self._by_event[event] = cgroup

    def remove(self, cgroup: Cgroup) -> None:
        """Watch it no more. No error if it is not watched. Of version 2 the kernel forgets it with the cgroup."""
        for event in [event for event, one in self._by_event.items() if one is cgroup]:
            del self._by_event[event]
            os.close(event)
        self._by_note = {number: one for number, one in self._by_note.items() if one is not cgroup}

    def ready(self) -> list[Cgroup]:
        """Of which something has been told since the last time."""
        found: dict[int, Cgroup] = {}
        for descriptor, _events in self._epoll.poll(0, TOLD_MAX):
            told = self._noted() if descriptor == self._notes else self._heard(descriptor)
            found |= {id(one): one for one in told}
        return list(found.values())

    def _heard(self, event: int) -> list[Cgroup]:
        with suppress(BlockingIOError):
            os.eventfd_read(event)
        return [self._by_event[event]] if event in self._by_event else []

    def _noted(self) -> list[Cgroup]:
        try:
            notes = os.read(self._notes, NOTES_MAX_BYTES)
        except BlockingIOError:
            return []
        numbers, at = [], 0
        while at < len(notes):
            number, _, _, length = linux.INOTIFY_EVENT.unpack_from(notes, at)
            numbers.append(number)
            at += linux.INOTIFY_EVENT.size + length
        return [self._by_note[number] for number in numbers if number in self._by_note]

    def close(self) -> None:
        """Give every descriptor back."""
        for event in self._by_event:
            os.close(event)
        if self._notes >= 0:
            os.close(self._notes)
        self._epoll.close()
