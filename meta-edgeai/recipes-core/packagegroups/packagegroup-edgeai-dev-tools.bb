SUMMARY = "Tools for a developer on the device"
DESCRIPTION = "Debugger, tracers and bus tools."

inherit packagegroup

RDEPENDS:${PN} = " \
    gdbserver \
    lsof \
    python3-pip \
    strace \
    usbutils \
    v4l-utils \
"
