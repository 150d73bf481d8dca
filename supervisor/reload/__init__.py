"""A running stack becomes what its file says now.

difference.py  what differs, and the steps from one to the other; pure
reloader.py    the steps done, one after another, and taken back where they fail
amendment.py   what an operator has changed meanwhile, and how long it holds; pure
watch.py       `up --watch`: tells when a file of the spec has changed
"""
