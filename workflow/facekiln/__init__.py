"""facekiln: from a face model's checkpoint to every artifact that edge chips need."""

__version__ = "0.1.0"
