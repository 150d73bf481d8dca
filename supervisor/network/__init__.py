"""The networks of a stack.

    pool.py      which subnets and addresses it has, sticky, on disk, and no one else's
    publish.py   ports of the host that lead to containers
    names.py     which names stand for whom: pure
    resolver.py  and their service, at each network's gateway
    stack.py     all of it together: the namespace of each container, from before its first run until it leaves

What is imported here by others is light; what speaks to the kernel or reads DNS is loaded with the first stack that has
networks.
"""
