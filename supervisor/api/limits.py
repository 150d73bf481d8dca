"""How many, how long and how large, of all that a caller of the control socket can bring about."""

CONNECTIONS_MAX = 512  # at once; one more is told so, and closed
BACKLOG = 512  # that wait to be accepted: the kernel holds them, and more than these wait to connect

HEAD_MAX_BYTES = 64 << 10  # request line and headers
BODY_MAX_BYTES = 4 << 20  # of a JSON body; an archive has its own limit
CHUNK_BYTES = 64 << 10  # one read or write

IDLE_S = 300.0  # between two requests of a connection
HEAD_S = 10.0  # from the first byte of a head to its last
BODY_S = 30.0  # from one piece of a body to the next
BODY_WHOLE_S = 60.0  # all of a JSON body
SEND_S = 30.0  # from one piece of a plain answer to the next; one who reads a stream may pause as long as he likes
FAREWELL_S = 1.0  # for those who are still told something when the stack has ended
LINGER_S = 1.0  # to read what a caller still sends after the answer, so that he gets to read it
LINGER_MAX_BYTES = 1 << 20

HAPPENINGS_KEPT = 1024  # for `since`, and for one who is slow to read
EXECUTIONS_MAX = 1024  # known at once; ended ones are forgotten first, oldest first
KEYS_MAX = 16  # in a sequence that detaches
LAST_WORD_S = 1.0  # to wait for the end of output that something in the background holds open
STATS_EVERY_S = 1.0

QUICK_WORKERS = 4  # threads for what reads a disk and ends by itself
ARCHIVE_WORKERS = 16  # archives under way at once: one whose caller has paused holds a thread
ENTRIES_MAX = 1_000_000  # of an archive, or of a listing of changes
ARCHIVE_MAX_BYTES = 64 << 30  # unpacked
DEPTH_MAX = 256  # of directories in an archive
