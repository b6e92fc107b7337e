SUMMARY = "Tools for a developer on the device"
DESCRIPTION = "Debugger, tracers, package installer and tools that list what is on the buses."

inherit packagegroup

RDEPENDS:${PN} = " \
    gdbserver \
    lsof \
    python3-pip \
    strace \
    usbutils \
    v4l-utils \
"
