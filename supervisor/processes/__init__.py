"""The supervisor's own child processes, and those below them: who clones, who reaps, how a tree of them is ended.

launchers.py  the pool of launchers (runtime/launcher.py): who gets which request, what happens when one dies
helper.py     an interpreter for one piece of work that the supervisor should not carry in itself
reaper.py     SIGCHLD to exit statuses; the one place that waits for children
uproot.py     ends a command with all that it has started
ps.py         a process as ps shows it
"""
