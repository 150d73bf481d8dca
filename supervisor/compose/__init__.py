"""From a docker-compose file to a spec: what pysup can do is carried over, all else is told, and nothing is guessed.

notes.py     what did not carry over, and where it was written
dollar.py    variables: the same syntax, and one difference
services.py  services and the containers that they become: ids, images, commands
keys.py      the table of all keys of a service: who carries one over, or why nobody does; rules.py: how
health.py    healthcheck to health
convert.py   `convert`: the whole file
writer.py    the spec as YAML that people like to read

The file is read as a spec is, to a tree that knows its places, with anchors and merge keys resolved. No variable is
replaced and no other file is opened. What results is a spec that loads: a value that pysup would refuse is dropped and
told. Two things only are left to its owner, for no file says them: the command of an image that has a CMD of its own
stands there as a variable that must be set, and each image must be made.
"""

from supervisor.compose.convert import Converted, convert

__all__ = ["Converted", "convert"]
