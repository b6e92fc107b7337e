"""`installer` of Debian with the options that OE's wheel class passes (--interpreter is a patch of OE's)."""

import argparse
import os

import installer.scripts
from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile
from installer.utils import get_launcher_kind

parser = argparse.ArgumentParser()
parser.add_argument("--interpreter")
parser.add_argument("--destdir")
parser.add_argument("--compile-bytecode", action="append", type=int)
parser.add_argument("--prefix", default="/usr")
parser.add_argument("wheel")
args = parser.parse_args()

installer.scripts._build_shebang = lambda executable, forlauncher: b"#!" + executable.encode()
version = os.environ.get("TESTDISTRO_PYTHON", "3.11")
site = f"{args.prefix}/lib/python{version}/site-packages"
with WheelFile.open(args.wheel) as source:
    scheme = {
        "purelib": site,
        "platlib": site,
        "scripts": args.prefix + "/bin",
        "data": args.prefix,
        "headers": f"{args.prefix}/include/python{version}/{source.distribution}",
    }
    destination = SchemeDictionaryDestination(
        scheme,
        interpreter=args.interpreter,
        script_kind=get_launcher_kind(),
        bytecode_optimization_levels=args.compile_bytecode or [],
        destdir=args.destdir,
    )
    install(source=source, destination=destination, additional_metadata={})
