"""Seccomp: which system calls a container's processes may make (seccomp(2)).

A profile, ours or one in a file, becomes a filter in three phases, each of which is data that can be looked at:

    default.py, reader.py ──► Profile ──► bpf.py ──► Filter: bytes that the child hands to the kernel

load.py is the front of it. Nothing of it is done at a start. All containers with the same profile and capabilities
share one Filter, and so do the programs that are lowered from their plans. No library of the host's is needed: the
numbers of the calls are in calls.py, and the tests hold the filters to what libseccomp makes of the same profiles.
"""
