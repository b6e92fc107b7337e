SUMMARY = "Runtime for the first Intel Neural Compute Stick"
DESCRIPTION = "Library and Python module; the firmware is a package of its own that an image never has by itself."

inherit packagegroup

RDEPENDS:${PN} = " \
    libmvnc \
    python3-mvnc \
"
