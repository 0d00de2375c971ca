"""From generated sources to images: PlatformIO, what an image is made of, projects to take away."""
