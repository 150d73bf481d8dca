"""A long run of many containers under random faults, during which every promise is checked: `make soak`.

population.py   the stack: containers that serve, crash, hang, flood, flap, and depend on each other
faults.py       what is done to it from outside
watch.py        what must hold all the time
__main__.py     the loop
"""
