"""The limits of a spec, all in one place: what a file may hold, and how far a value may go."""

# What is read.
FILE_MAX_BYTES = 4 << 20
NODES_MAX = (
    500_000  # after aliases are expanded: a few lines of aliases of aliases can stand for more than memory holds
)
DEPTH_MAX = 32  # of nesting; a sound spec has 5

# What is said.
FAULTS_MAX = 200  # shown; the rest is counted
COMPARISONS_MAX = 20_000  # of words, in search of the nearest one, over all faults
SHOWN_MAX_CHARS = 40  # of a value in a message
KEYS_SHOWN_MAX = 16  # in a message about one that is not among them
MESSAGE_MAX_CHARS = 200  # of the user's own, for a variable that is not set

# What may be asked for.
TEXT_MAX_BYTES = (128 << 10) - 1  # of one string, less its NUL: MAX_ARG_STRLEN, execve(2)
PATH_MAX_BYTES = 4095  # less its NUL: PATH_MAX, path_resolution(7)
PREFIX_MAX_CHARS = 63  # of lines of output: as long as an id
HOSTNAME_MAX_CHARS = 64  # __NEW_UTS_LEN, sethostname(2)
REPLICAS_MAX = 10_000
LOG_FILES_MAX = 1_000  # of a container: each is looked at by whoever reads it
INSTANCES_MAX = 100_000  # over all containers
RETRIES_MAX_DIGITS = 6
GRACE_MAX_S = 86_400.0  # a day
WAIT_MAX_S = 365 * 86_400.0  # between two runs
STORAGE_MIN_BYTES = 64 << 10
STORAGE_MAX_BYTES = 1 << 50
MOUNTS_MAX = 100  # of a container: each is a descriptor that goes along with its start
RLIMIT_MAX = (1 << 63) - 1

PORTS_MAX = 1_024  # of a container that are published: each is a socket of ours
SUBNET_PREFIX_MIN, SUBNET_PREFIX_MAX = 8, 29  # bits, of a network's

# What is put together.
FILES_MAX = 200  # of a spec: those named, included and extended
ENV_FILES_MAX = 1_000  # read, each once
NESTING_MAX = 16  # of files that include others, and of containers that extend others
FILLED_MAX_CHARS = 16 << 20  # of all variables' values, each time one is put in: a few short files can ask for more
VARIABLES_DEPTH_MAX = 16  # of defaults in defaults

# Of checks.
PATTERN_MAX_CHARS = 1_000
CHECK_MIN_S = 0.01  # between two, and for one: each is a wake-up
CHECK_MAX_S = 86_400.0
CODES_MAX = 256  # of ends that are listed
DESCRIPTORS_MIN = 1  # RLIMIT_NOFILE bounds what poll(2) takes, too, and a start polls one; a program's loader needs 4
