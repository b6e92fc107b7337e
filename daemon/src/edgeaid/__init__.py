"""edgeaid: loads models, keeps accelerators alive, answers on a local socket."""

from typing import Final

__version__: Final = "0.1.0"
