# TEST ONLY (wrynose and later): Debian's gcc instead of gcc-cross
inherit toolchain/gcc
PREFERRED_PROVIDER_virtual/${MLPREFIX}cross-cc = "debian-cross-${TARGET_ARCH}"
PREFERRED_PROVIDER_virtual/${MLPREFIX}cross-c++ = "debian-cross-${TARGET_ARCH}"
PREFERRED_PROVIDER_virtual/${MLPREFIX}compilerlibs = "glibc"
DEBUG_PREFIX_MAP_EXTRA = ""
