"""The networks of a stack.

    stack.py       all of it together: who is where, from before its first run until it leaves
    space.py       what a container has of networks, and whether that is what it is to have
    connecting.py  how it is given that: addresses, names and ports, and its namespace connected
    inside.py      what it reads of them: its address, resolv.conf, hosts
    fabric.py      the networks themselves, made and taken away, and what is served in them
    wiring.py      the same in the kernel
    pool.py        which subnets and addresses a stack has, sticky, on disk, and no one else's
    note.py        what else is on disk, for the next start to clean up
    publish.py     ports of the host that lead to containers
    names.py       which names stand for whom: pure
    resolver.py    and their service, at each network's gateway
    ends.py        where a container is, as others see it

What is imported here by others is light; what speaks to the kernel or reads DNS is loaded with the first stack that has
networks.
"""
