"""The operator's side of a running stack: whatever is asked becomes an event of a container's machine.

board.py       `Commands` (supervisor/commands.py) on services, runs, logs and events; the API speaks to it
chronicle.py   when things happened, what containers are called, and who is told of events
attachment.py  one who has joined a container's streams
household.py   what a reload changes beside the stack: names, and where whose lines go
desk.py        opens all that stands between a stack and its operators: logs, events, socket, systemd, metrics
"""
