"""The spec: a YAML stack file, read, validated and frozen.

limits.py       how much a file may hold, and how far a value may go
faults.py       what is wrong, and where: all of it at once
tree.py         YAML as data that knows where it was written
reader.py       a file to a tree, whatever its bytes
later.py        variables that each replica has its own values of
interpolate.py  variables in text
envfile.py      files of variables
terms.py        the words with a closed set of values
kinds.py        scalars and collections
values.py       text to values, one function per field; restarts.py, probes.py and sharing.py go on with it
fields.py       each kind with its JSON schema
graph.py        what holds between containers: ids, dependencies, order
model.py        Spec, Container, Backoff; Sharing and Joining, of which nothing is left in a Spec
explain.py      what pydantic says, in our words
merge.py        mappings laid over one another
defaults.py     the defaults, under each container
sources.py      several files to one tree: what is named, included, extended
loader.py       `load`: all of the above in their order
resolve.py      a spec back to YAML, with nothing left out; origins.py: and where each value came from
editor.py       the JSON schema of a stack file
"""

from runtime.config import Network
from supervisor.core.policy import Condition, RestartPolicy
from supervisor.errors import SpecError
from supervisor.spec.editor import schema
from supervisor.spec.faults import Fault
from supervisor.spec.graph import order
from supervisor.spec.loader import container, load
from supervisor.spec.model import Backoff, Container, Instance, Spec, instances
from supervisor.spec.origins import with_origins
from supervisor.spec.resolve import resolved
from supervisor.spec.terms import Restart, Storage

__all__ = [
    "Backoff",
    "Condition",
    "Container",
    "Fault",
    "Instance",
    "Network",
    "Restart",
    "RestartPolicy",
    "Spec",
    "SpecError",
    "Storage",
    "container",
    "instances",
    "load",
    "order",
    "resolved",
    "schema",
    "with_origins",
]
