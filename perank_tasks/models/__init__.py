"""Models: finding, unpacking and cutting them; encoders; vectors; what ships with the package."""
