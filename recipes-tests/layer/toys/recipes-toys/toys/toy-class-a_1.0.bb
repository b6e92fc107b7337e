require toy-of-class.inc

# A native variant is a recipe of its own to BitBake.
BBCLASSEXTEND = "native"
