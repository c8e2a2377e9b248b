"""facekiln: from a face model's checkpoint to every artifact that edge chips need."""

import os

# OpenCV reads it when it is first imported. 200 megapixels, what the best phones' cameras have, take 0.6 GB,
# as a progressive JPEG up to 1.8 GB. OpenCV's own limit is 1,074 megapixels.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "200000000")

__version__ = "0.1.0"
