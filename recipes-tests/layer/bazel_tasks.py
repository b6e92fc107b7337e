"""Run inside a build directory after `bitbake -g IMAGE`: which tasks of the graph run Bazel, and what holds them apart, as JSON.

    python3 bazel_tasks.py OUT

Asks BitBake for every recipe of the graph (pn-buildlist), and decides by its own, wider rule than the layer's: a task counts if
its code, the code of what it calls, or a script of the recipe's FILESPATH that it names holds the word "bazel" as a program, and the
step that compiles counts wherever a Bazel class is inherited.
"""

import json
import re
import sys
from pathlib import Path

import bb.data
import bb.tinfoil

# Any word bazel in the place of a program; what is only an argument of these is not one.
HARMLESS = re.compile(
    r"^\s*(?:rm|mkdir|install|cp|ln|mv|chmod|touch|sed|zip|if \[|elif \[|cd|create_cmdline_wrapper|patchelf\S*|for|export \w+=|#|:)\b"
)
PROGRAM = re.compile(r"(?:^|[\s/\"'`(])bazel(?:isk)?(?:-[\d.]+)?[\"']?(?=\s|,|$)|\S*bazel\S*\.(?:sh|py)\b|BAZEL\b")


def code(d, name, seen):
    if name in seen:
        return ""
    seen.add(name)
    text = d.getVar(name) or ""
    called = [w for w in set(re.findall(r"[A-Za-z_][\w-]*", text)) if d.getVarFlag(w, "func", False)]
    return text + "".join("\n" + code(d, word, seen) for word in sorted(called))


def runs_bazel(d, task):
    if task in ("do_compile", "do_bazel_compile") and bb.data.inherits_class("bazel-base", d):
        return True
    names = [task, *(d.getVarFlag(task, "prefuncs") or "").split(), *(d.getVarFlag(task, "postfuncs") or "").split()]
    names = [name for name in names if not name.startswith("edgeai_bazel")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(code(d, name, set()) for name in names))
    return any(PROGRAM.search(line) and not HARMLESS.match(line) for line in text.splitlines())


def names_bazel(d):
    """Whether any file that the recipe is made of, this layer's own class aside, holds the word: the rest is not asked, each
    question to BitBake's server takes milliseconds."""
    files = [Path(name) for name in (d.getVar("BBINCLUDED") or "").split() if not name.endswith("edgeai_bazel.bbclass")]
    return any(path.is_file() and "bazel" in path.read_text(errors="replace").lower() for path in files)


def main():
    tasks = {}
    with bb.tinfoil.Tinfoil() as tinfoil:
        tinfoil.prepare(quiet=2)
        for name in Path("pn-buildlist").read_text().split():
            d = tinfoil.parse_recipe(name)
            if not names_bazel(d):
                continue
            for task in d.getVar("__BBTASKS", False) or []:
                if runs_bazel(d, task):
                    tasks[f"{name}.{task}"] = {
                        "lockfiles": sorted((d.getVarFlag(task, "lockfiles") or "").split()),
                        "number_threads": tinfoil.config_data.getVarFlag(task, "number_threads"),
                        "jobs": d.getVar("BAZEL_JOBS"),
                        "startup": d.getVar("BAZEL_STARTUP_OPTIONS"),
                        "java": d.getVar("JAVA_TOOL_OPTIONS"),
                        "do_compile": d.getVar("do_compile"),
                        "options": d.getVar("EDGEAI_BAZEL_OPTIONS"),
                        "exported": d.getVar("CUSTOM_BAZEL_FLAGS"),
                        "prefuncs": d.getVarFlag(task, "prefuncs"),
                    }
    Path(sys.argv[1]).write_text(json.dumps(tasks, indent=1))


main()
