SUMMARY = "Runtime for the Coral USB Accelerator"
DESCRIPTION = "Driver library in both clock settings and Python classes."

inherit packagegroup

RDEPENDS:${PN} = " \
    libedgetpu-clock-max \
    libedgetpu-clock-std \
    python3-pycoral \
"
