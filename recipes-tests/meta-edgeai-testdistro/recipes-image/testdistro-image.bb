SUMMARY = "TEST ONLY: the replaced userland alone, to tell a fault of the rig from a fault of ours"
LICENSE = "MIT"
IMAGE_FEATURES += "ssh-server-openssh"
IMAGE_INSTALL = "packagegroup-core-boot python3 python3-numpy python3-aiohttp python3-pyserial python3-pyudev python3-systemd"
inherit core-image
