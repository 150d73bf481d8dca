"""What is decided, and nothing else: no clock, no chance, no I/O, no loop. All of it can be tested by plain calls.

checks.py       how it is found out that a container serves; plain data
policy.py       when to restart, and after how long
states.py       what the machine knows, hears and asks for; plain data
machine.py      what one container does next: `step(state, event, now) -> (state, actions)`, one table
transitions.py  the functions in that table
moves.py        what several of them have in common
"""
