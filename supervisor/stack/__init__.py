"""A stack while it runs: one task per container and one group around them all, which carry out what core/ decides.

tree.py     `Stack`: in what order containers start, restart and stop, and when it is over
group.py    the replicas of one entry, and what a container has come to in the eyes of others
arrival.py  whether all of it is up, for whoever waits for that
service.py  `Service`: one container over all its runs
runner.py   how runs are started, looked at and ended: the seam to kernel/, where tests put a fake
"""
