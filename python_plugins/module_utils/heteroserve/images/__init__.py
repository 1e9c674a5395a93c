"""Images: archives that a site brings, and builds of the engines."""
