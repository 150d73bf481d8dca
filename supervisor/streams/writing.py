"""The threads that write: to the console, and to logs. A write may never return, and the loop must not wait for it."""

import signal
import threading
from collections.abc import Callable


def begin_thread(name: str, run: Callable[[], None]) -> threading.Thread:
    """A daemon, which is not joined when the interpreter exits: that would hang where its write does.

    It takes no signal, not even for a moment: SIGCHLD would be lost on it (signalfd(2), signal(7)).
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    thread.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread
