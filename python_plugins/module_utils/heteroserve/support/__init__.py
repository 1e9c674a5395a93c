"""What goes into the archive for somebody who helps."""
