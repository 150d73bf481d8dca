"""Logs on disk: what containers write, kept within limits, and read again by whoever asks.

    STATE/stacks/NAME/logs/ID/7.log         whole lines in the CRI format (`cri`); the highest number is written to
    STATE/stacks/NAME/logs/ID/6.log.gz      the others are complete, and change no more but to be compressed or removed
    STATE/stacks/NAME/logs/ID/stdout/3.log  `driver: raw`: a stream's bytes as they came

A file is never renamed and a number never used again, so (number, offset) is a place in a log that stays true
whatever is rotated, compressed or removed meanwhile. A reader that has come to the end of a file goes on with the next
number; there is nothing to lose or to see twice, and nothing to lock.

    the loop ──► LogWriter ──► thread: Store ──► Shelf, one per directory
      ▲              │ a word when lines of a followed log are written
      └── logs() ◄── Cursor (in worker threads)

* `policy`: how a container's output is kept; `foreign`: the same in Docker's words. Pure.
* `cri`: how lines look on disk. Pure.
* `shelf`: one directory as its writer sees it: append, rotate, compress, repair.
* `store`: all directories of a stack, and the limit that they share.
* `writer`: the thread, its buffer, and what the loop is told.
* `cursor`: one directory as a reader sees it.
"""
