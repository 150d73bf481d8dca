"""Images: read-only root file systems, each a directory `images/NAME`.

lookup.py       names to directories: `find`, `search_path`; all that a start needs
listing.py      `ls`: what there is
from_host.py    `create`: one made from programs of the host, by way of
  skeleton.py   the directories and small files that every image has
  programs.py   which files a program needs
  elf.py, interpreter.py, mirror.py
"""
