SUMMARY = "Runtime for the Intel Neural Compute Stick 2"
DESCRIPTION = "OpenVINO with the MYRIAD plugin; the firmware is a package of its own that an image never has by itself."

inherit packagegroup

RDEPENDS:${PN} = "openvino-myriad"
