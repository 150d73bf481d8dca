"""From a spec and a host to what is run: the last phase before anything starts, where every fault is still an error.

compiler.py  images, users, environments, dependencies: to the entries of supervisor/entry.py
mounting.py  volumes, secrets, devices and names: to what one container is given
topology.py  networks and ports: which container is where
workshop.py  the same for containers that the API makes while the stack runs
show.py      what `up --dry-run` prints of it
"""
