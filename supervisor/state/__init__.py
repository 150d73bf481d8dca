"""What is on disk while a stack runs, by which the next start finds and removes what a crash has left.

home.py     a stack's directories and its lock; the sweep
cgroups.py  its branch of the cgroup tree, and the note of it
ids.py      the blocks of the host's ids that its containers have
"""
