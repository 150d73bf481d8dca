"""Runs on the real kernel: a plan, its streams, a launcher's clone, the reaper's status, and nothing left behind.

opening.py     `kernel`: a runner with all that it needs, while a context lasts
runner.py      `KernelRunner`: starts containers
run.py         `KernelRun`: one that runs, or ran
process.py     its process 1
execution.py   a command that an operator runs in it
senses.py      by what it is heard: notify.py (sd_notify), memory.py (kills for want of it), streams/output.py
probes.py      how it is looked at
namespaces.py  user namespaces of containers with ids of their own
uppers.py      what they have written, while they do not run
turns.py       who is first where only one can be
means.py       what all runs share

The seam that tests put a fake behind is stack/runner.py; the rest of the supervisor needs the names below only.
"""

from supervisor.kernel.opening import kernel
from supervisor.kernel.run import ENDED, KernelRun
from supervisor.kernel.runner import Complain, KernelRunner, MakeStreams

__all__ = ["ENDED", "Complain", "KernelRun", "KernelRunner", "MakeStreams", "kernel"]
