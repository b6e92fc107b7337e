require libmvnc.inc

EDGEAI_STATUS = "built"

MVNC_BRANCH = "ncsdk2"
SRCREV = "3ca1171b4237cc64e0388cb8633c2626baced59a"

MVNC_SOURCES = " \
    mvnc_api.c \
    fp16.c \
    common/components/XLink/pc/usb_boot.c \
    common/components/XLink/pc/pcie_host.c \
    common/components/XLink/pc/XLinkPlatform.c \
    common/components/XLink/shared/XLink.c \
    common/components/XLink/shared/XLinkDispatcher.c \
    common/components/XLinkConsole/pc/XLinkConsole.c \
"
MVNC_EXTRA_CFLAGS = ' \
    -Icommon/components/XLink/shared \
    -Icommon/components/XLink/pc \
    -Icommon/components/XLinkConsole/pc \
    -Icommon/swCommon/include \
    -Icommon/shared/include \
    -DDEVICE_SHELL_ENABLED \
    -DEXCLUDE_HIGHCLASS \
    -DVERSION_NAME="\"${PV}\"" \
'
