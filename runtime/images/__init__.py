"""Images: read-only root file systems, each a directory `images/NAME`. Find them, list them, make one from the host."""

from runtime.images.from_host import create
from runtime.images.listing import ImageInfo, ls
from runtime.images.lookup import Image, find, search_path
from runtime.images.skeleton import HOST_TOOLS

__all__ = ["HOST_TOOLS", "Image", "ImageInfo", "create", "find", "ls", "search_path"]
