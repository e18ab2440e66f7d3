"""Pixels from files: finding image files, decoding them safely, and the two small pictures made from them.

Owns: which files a pattern means (`finding`); recognising formats by content, limits before decoding, telling a whole
file from a cut one (`checks`); orientation, time taken, one RGB picture (`decoding`); strangers' pictures in child processes
(`apart`); RGB over white, the network's input, the thumbnail (`pixels`). Does not own: what is done with pixels or paths
(`img2vec.py`, `search/`), nor what is kept (`store`).
"""

from images.apart import Decoders, Prepared, Wanted, prepare
from images.camera import Camera, read_camera
from images.checks import Limits, sniff_format
from images.decoding import DecodedImage, decode_image
from images.finding import FoundFiles, find_images
from images.pixels import make_thumbnail, network_input

__all__ = [
    "Camera",
    "DecodedImage",
    "Decoders",
    "FoundFiles",
    "Limits",
    "Prepared",
    "Wanted",
    "decode_image",
    "find_images",
    "make_thumbnail",
    "network_input",
    "prepare",
    "read_camera",
    "sniff_format",
]
