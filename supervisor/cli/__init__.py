"""The command line: a module for each family of commands, which reads its options and speaks to people.

main.py finds the module of a command and loads that alone. What several share: stacks.py (which stack and containers),
options.py, together.py (many containers at once), table.py and words.py (what is shown), explain.py (what goes wrong).
"""
