"""Control groups: a container's own, what it may use, what it uses, and the end of all in it.

hierarchies.py  what this host has: `discover`
limits.py       `Limits`, and what they are as writes to files: `settings`
  v1.py, v2.py  the two versions' words for the same things: the back ends
branch.py       a stack's part of the tree, in each hierarchy that it uses: made, swept, removed
group.py        `Cgroup`, a container's: members, kill, freeze, figures
figures.py      `Figures`

A cgroup of ours is OWN/pysup/NAME/ID, where OWN is the cgroup that pysup itself was started in: so whatever limits us
limits our containers, and nothing is ever made, changed or removed beside it. A hierarchy has version 1 or 2
(cgroups(7)); hosts have only version 2, only version 1, or version 1 for controllers and beside it a version 2 without
any, which still can kill and freeze. A container is in as few hierarchies as do the job, for each costs its start 0.1
ms: version 2, or else freezer; memory; and what its limits need.
"""
