"""pysup's supervisor: when containers run. It knows no system call; `runtime` does.

From the file to a stack that runs, each on those above it:

core/       what is decided: restarts, checks, states, the machine; pure
spec/       the file, read, checked and frozen; compose/: from a docker-compose file to one
compile/    spec and host to entries (entry.py)
state/      what is on disk, and what a crash left there
streams/    from containers' pipes to the console; logs/: to files, and from them
processes/  our own children: launchers, reaper
network/    the networks of a stack
stack/      one task per container, one group around them
kernel/     their runs on the real kernel, behind stack/runner.py
reporting/  events, journal, systemd, metrics
reload/     a running stack becomes what its file says now
control/    what operators ask, in the words of commands.py
api/        the control socket; client.py: its other end
up.py       all of it together: `pysup up`; single.py: `pysup run`
cli/        one module per family of commands
"""

__version__ = "0.1.0"
