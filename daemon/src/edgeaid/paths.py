"""Places that a daemon and its clients agree on."""

from typing import Final

#: The daemon's HTTP socket on a device.
HTTP_SOCKET: Final = "/run/edgeai/edgeaid.sock"
