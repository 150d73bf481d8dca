"""Between what containers write and the descriptor that the user reads, or types at.

output.py    reads the pipes of all containers, in whole lines, and lets nobody starve
lines.py     lines as bytes: how they are cut, and how they look; pure
console.py   one writer to one descriptor, which never blocks the loop
writing.py   the threads that write
terminal.py  the user's terminal joined to a container's
"""
