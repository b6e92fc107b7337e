SUMMARY = "A screen: kiosk session with a camera or a stream"
DESCRIPTION = "Weston with its kiosk shell, and the program that fills the screen."

# weston-init belongs to one machine.
PACKAGE_ARCH = "${MACHINE_ARCH}"
inherit packagegroup features_check

REQUIRED_DISTRO_FEATURES = "opengl pam systemd wayland"

RDEPENDS:${PN} = " \
    edgeai-screen \
    weston \
    weston-init \
"
