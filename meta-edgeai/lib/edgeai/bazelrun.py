"""Which tasks of a recipe run Bazel, and whether what they run keeps the limits. Read from the text of the tasks.

Only plain functions here: BitBake reads the source of a registered module to put it into signatures.
"""

import re

#: Commands of Bazel 4 to 8. A word "bazel" is an invocation only if one of these follows, after options.
COMMANDS = (
    "analyze-profile|aquery|build|canonicalize-flags|clean|config|coverage|cquery|dump|fetch|help|info|license|mobile-install|mod"
    "|print_action|query|run|shutdown|sync|test|vendor|version"
)

# "bazel build", "${BAZEL} --batch build", "/path/bazelisk run", ["bazel", "build"]; what is between may be options or variables.
_SEPARATOR = r"""["']?[\s,]+["']?"""
_PROGRAM = r"""(?:[^\s"'`;|&()=,\[\]#]*/)?bazel(?:isk)?(?:-[\d.]+)?(?:\.real)?|\$\{?\w*BAZEL\w*\}?"""
_RUN = re.compile(
    rf"""(?:^|(?<=[\s"'`;|&(=,\[]))(?P<program>{_PROGRAM})(?:{_SEPARATOR}[-$@{{*][^\s,]*)*{_SEPARATOR}(?:{COMMANDS})(?![\w.-])""",
    re.MULTILINE,
)
# A script of the sources whose name says that it runs Bazel, such as build_pip_package_with_bazel.sh.
_SCRIPT = re.compile(
    r"""(?:^|[;&|(]|\bthen\b|\bdo\b)\s*(?:\w+=\S*\s+)*(?:(?:ba|da)?sh\s+|exec\s+|nice\s+|env\s+|python3?\s+)*(?P<program>[^\s;&|()]*bazel[^\s;&|()]*\.(?:sh|py))(?=\s|$|;)""",
    re.MULTILINE,
)
# Limits that are written down: on the command line they win over every file of options.
_WRITTEN = re.compile(
    r"--jobs(?:=|\s+)(?:auto|HOST_CPUS[*.\d]*|\d+)|--local_(?:cpu|ram)_resources(?:=|\s+)(?:HOST_\w+[*.\d]*|[\d.]+)"
    r"|--local_resources(?:=|\s+)(?:cpu|memory)=(?:HOST_\w+[*.\d]*|[\d.]+)|--host_jvm_args=-Xmx\w+"
)
_FILES = {}  # path: whether it names Bazel
_JOBS = re.compile(r"(?:--jobs(?:=|\s+)|(?<=\s)-j\s*)([\w*.]+)")


# What only says something.
_SAID = re.compile(r"(?:^|(?<=[;&|({]))\s*(?:echo|printf|bb(?:plain|note|warn|error|fatal|debug)|bb\.(?:plain|note|warn|error|fatal))\b[^;&|\n]*", re.MULTILINE)


def _plain(text):
    """The text without comments and messages, each command in one line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return _SAID.sub("", re.sub(r"\\\n\s*", " ", "\n".join(lines)))


def programs(text):
    """What a task's text runs Bazel by: paths, names or variables.

    >>> programs('rm -rf bazel-bin; bazel --batch build //...')
    ['bazel']
    """
    plain = _plain(text)
    return [call["program"] for pattern in (_RUN, _SCRIPT) for call in pattern.finditer(plain)]


def without_written_limits(text):
    """The text without numbers of jobs, processors or bytes that somebody wrote into it.

    >>> without_written_limits('bazel build --jobs=auto --jobs=${BAZEL_JOBS} //...')
    'bazel build  --jobs=${BAZEL_JOBS} //...'
    """
    return _WRITTEN.sub("", text)


def foreign_jobs(text, jobs):
    """Numbers of jobs on Bazel's command lines that are not ours."""
    lines = [line for line in _plain(text).splitlines() if programs(line)]
    return [given for line in lines for given in _JOBS.findall(line) if given != str(jobs)]


def _file_mentions(path):
    """Whether a file of metadata holds the word; each is read once."""
    if path not in _FILES:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                _FILES[path] = "bazel" in file.read().lower()
        except OSError:
            _FILES[path] = False
    return _FILES[path]


def mentions_bazel(d):
    """Whether a recipe is worth a closer look: a file of it, of its appends or of its classes names Bazel. Asked for every recipe."""
    return any(_file_mentions(path) for path, _ in d.getVar("__depends", False) or [])


def functions(d, task):
    """Names of a task's function, of what runs before and after it, and of every function these call."""
    waiting = [task, *(d.getVarFlag(task, "prefuncs") or "").split(), *(d.getVarFlag(task, "postfuncs") or "").split()]
    seen = []
    while waiting:
        name = waiting.pop()
        text = d.getVar(name) if name not in seen else None
        if text is None:
            continue
        seen.append(name)
        words = set(re.findall(r"[A-Za-z_][\w-]*", text))
        waiting += sorted(word for word in words if word not in seen and d.getVarFlag(word, "func", False))
    return seen


def tasks_that_run_bazel(d, tasks):
    """{task: text of all its functions} of those that run Bazel."""
    import bb.data
    import bb.utils

    running = {}
    for task in tasks:
        text = "\n".join(d.getVar(name) or "" for name in functions(d, task))
        if task == "do_bazel_compile" or programs(text):
            running[task] = text
    # A class or a tool of Bazel's without a visible call: the step that compiles is the one that uses it.
    needs = set(bb.utils.explode_deps(d.getVar("DEPENDS") or ""))
    by_tool = bb.data.inherits_class("bazel-base", d) or any(re.match(r"bazel(isk|-bootstrap)?-native$", one) for one in needs)
    if by_tool and "do_compile" in tasks and "do_bazel_compile" not in running:
        running.setdefault("do_compile", "\n".join(d.getVar(name) or "" for name in functions(d, "do_compile")))
    return running


def problem(d, task, text):
    """Why a task's Bazel would not keep the limits of this host, or an empty text."""
    import bb.data

    jobs, file = d.getVar("EDGEAI_BAZEL_JOBS"), d.getVar("EDGEAI_BAZEL_RC")
    foreign = foreign_jobs(text, jobs)
    if foreign:
        return f"{task} gives Bazel --jobs={foreign[0]}, which wins over the limits of this host; leave the option out"
    exported = " ".join(d.getVar(name) or "" for name in ("BAZEL_STARTUP_OPTIONS", "EXTRA_BAZEL_ARGS"))
    called = [one for one in programs(text) if not one.endswith((".sh", ".py"))]
    named = file in text or "EDGEAI_BAZEL_STARTUP" in text  # code in Python is not expanded
    if named or (task == "do_bazel_compile" and not called):
        return ""
    if bb.data.inherits_class("bazel", d) and file in exported and all(one == d.getVar("BAZEL") for one in called):
        return ""
    if not called and f"--jobs={jobs}" in exported:
        return ""
    # BitBake expands the text, so variables are named without ${}.
    name = f" as {called[0]}" if called else ""
    return (
        f"{task} runs Bazel{name} without the limits of this host; put the variable EDGEAI_BAZEL_STARTUP between bazel and its command, "
        "or inherit bazel and call the variable BAZEL"
    )
