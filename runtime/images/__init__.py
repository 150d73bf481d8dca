"""Images: read-only root file systems, each a directory `images/NAME`. Find them, list them, make one from the host."""

from runtime.images.create import create
from runtime.images.find import Image, find, search_path
from runtime.images.listing import ImageInfo, ls
from runtime.images.skeleton import HOST_TOOLS

__all__ = ["HOST_TOOLS", "Image", "ImageInfo", "create", "find", "ls", "search_path"]
