"""A running stack becomes what its file says now.

difference.py  compares what runs with what is wanted; pure
facts.py       the same of one container in the spec's words, value by value
changes.py     what both find, as data
waves.py       the steps from one to the other; pure
report.py      what changes, told to people and programs
reloader.py    takes requests for reloads, one after another, and goes back where one fails
performer.py   does the steps
waiting.py     whether what was started comes up
house.py       who else keeps account of the containers
amendment.py   what an operator has changed meanwhile, and how long it holds; pure
watch.py       `up --watch`: tells when a file of the spec has changed
"""
