"""Real images: file formats, preparation, and the endless training stream."""
