"""Draws every picture of the documents anew: `python -m docs.pictures`."""

from docs.pictures.draw import write_all

write_all()
