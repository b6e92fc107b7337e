"""Which tasks of a recipe run Bazel, and whether what they run keeps the limits. Read from the text of the tasks.

Only plain functions here: BitBake reads the source of a registered module to put it into signatures.
"""

import re

#: Commands of Bazel 4 to 8. A word "bazel" is an invocation only if one of these follows, after options.
COMMANDS = (
    "analyze-profile|aquery|build|canonicalize-flags|clean|config|coverage|cquery|dump|fetch|help|info|license|mobile-install|mod"
    "|print_action|query|run|shutdown|sync|test|vendor|version"
)

# "bazel build", "${BAZEL} --batch build", "/path/bazelisk run", ["bazel", "build"]; what is between may be variables, and options with
# their values ("--output_base /path").
_SEPARATOR = r"""["']*[\s,]+["']*"""
_WORD = r"""[^\s,"']*(?:["'][^\s,"']+)*"""
_PROGRAM = r"""(?:[^\s"'`;|&()=,\[\]#]*/)?i?bazel(?:isk|w)?(?:[-_]?[\d.]+)?(?:[-_]linux[-_]\w+)?(?:\.real)?|\$\{?\w*BAZEL\w*\}?"""
_BETWEEN = rf"(?:{_SEPARATOR}(?:-{_WORD}(?:{_SEPARATOR}(?!(?:{COMMANDS})\b|[-$@{{*\"'])[^\s,]{_WORD})?|[$@{{*]{_WORD}))*"
_RUN = re.compile(
    rf"""(?:^|(?<=[\s"'`;|&(=,\[]))(?P<program>{_PROGRAM}){_BETWEEN}{_SEPARATOR}(?:{COMMANDS})(?![\w.-])""",
    re.MULTILINE,
)
# Where a command begins: at the beginning of a line or after what ends another one, behind words that start the next.
_BEGINS = r"""(?:^|[;&|(!]|\{(?=\s)|\b(?:then|do|else)\b)[ \t]*(?:(?:\w+=\S*|exec|nice|env|time|-\S+|\d+)[ \t]+)*"""
# A command that somebody else names: "bazel $BAZEL_OPTIONS "$@"" in a function that is called with it.
_HANDED_ON = re.compile(
    rf"""{_BEGINS}["']?(?P<program>{_PROGRAM}){_BETWEEN}{_SEPARATOR}\$(?:[@*]|\{{?\w+\}}?)(?=["']*\s*(?:[;&|)}}\n]|$))""", re.MULTILINE
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


# What only says something, and does not say what a command answered.
_SAID = re.compile(
    r"(?:^|(?<=[;&|({]))\s*(?:echo|printf|bb(?:plain|note|warn|error|fatal|debug)|bb\.(?:plain|note|warn|error|fatal))\b"
    r"(?![^;&|\n]*(?:`|\$\())[^;&|\n]*",
    re.MULTILINE,
)


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
    calls = {call.start("program"): call["program"] for pattern in (_RUN, _SCRIPT, _HANDED_ON) for call in pattern.finditer(plain)}
    return [calls[place] for place in sorted(calls)]


# A script or a program of the sources, or what builds by rules that are there; none of it can be read here.
_STARTED = re.compile(
    rf"""{_BEGINS}(?:(?:(?:ba|da)?sh|python3?|\.|source|-\S+)[ \t]+)*["']?"""
    r"""(?:[^\s;&|()"'=]*/[^\s;&|()"'=]+|[^\s;&|()"'=/]+\.(?:sh|py|bash)|(?:oe_run)?make|ninja|cmake)(?=["']?(?:[\s;&|)]|$))"""
    r"""|\b(?:subprocess|bb\.process)\.\w+\(|\bos\.(?:system|exec\w+|spawn\w+)\(""",
    re.MULTILINE,
)
# A wheel that was built is only unpacked.
_WHEEL = re.compile(r"\S*pip3?[ \t]+install\b[^\n;&|]*\.whl\b")


def starts_something_unread(text):
    """Whether a task's text starts what its recipe does not show.

    >>> starts_something_unread('install -m 0755 out/tool /image; ./tools/strip.sh /image')
    True
    """
    return bool(_STARTED.search(_WHEEL.sub("", _plain(text))))


def between_sources_and_packages(after):
    """Tasks in which a recipe builds: what waits for do_configure's own needs, and packages wait for it.

    `after`: {task: tasks it waits for}
    """

    def ended(*tasks):
        waiting, seen = [one for task in tasks for one in after.get(task, ())], set()
        while waiting:
            one = waiting.pop()
            if one not in seen:
                seen.add(one)
                waiting += after.get(one, ())
        return seen

    return (ended("do_package", "do_populate_sysroot", "do_install") | {"do_install"}) & set(after) - ended("do_configure")


def without_written_limits(text):
    """The text without numbers of jobs, processors or bytes that somebody wrote into it.

    >>> without_written_limits('bazel build --jobs=auto --jobs=${BAZEL_JOBS} //...')
    'bazel build  --jobs=${BAZEL_JOBS} //...'
    """
    return _WRITTEN.sub("", text)


def handing_on(text):
    """Whether a function calls Bazel with the command that it is called with."""
    return bool(_HANDED_ON.search(_plain(text)))


def foreign_jobs(text, jobs, functions=()):
    """Numbers of jobs on Bazel's command lines that are not ours. `functions`: names that stand for Bazel in the text, see handing_on()."""
    called = re.compile(rf"{_BEGINS}(?:{'|'.join(map(re.escape, functions))})\s") if functions else None
    lines = [line for line in _plain(text).splitlines() if programs(line) or (called and called.search(line))]
    return [given for line in lines for given in _JOBS.findall(line) if given != str(jobs)]


# These start no work; the heap of their server is bounded by JAVA_TOOL_OPTIONS.
_IDLE = re.compile(r"(?:canonicalize-flags|clean|dump|help|info|license|shutdown|version)$")


def without_limits(text, names, limited=""):
    """Programs of a text that run Bazel without our file of limits, in order.

    `names`: what the limits are called by, as a path or a variable; `limited`: a program that has them by itself. A variable between
    a program and its command may hold them where the text names them somewhere.
    """
    plain = _plain(text)
    named = any(name in plain for name in names)
    bare = []
    for call in [*_RUN.finditer(plain), *_HANDED_ON.finditer(plain)]:
        words = call[0].partition(call["program"])[2]
        given = any(name in words for name in names) or (named and re.search(r"[$*{]", words))
        idle = _IDLE.search(words) and (named or limited)
        if not given and not idle and call["program"] != limited:
            bare.append(call["program"])
    return bare


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
    running = {}
    for task in tasks:
        text = "\n".join(d.getVar(name) or "" for name in functions(d, task))
        if task == "do_bazel_compile" or programs(text):
            running[task] = text
    # A class or a tool of Bazel's without a visible call: the step that compiles is the one that uses it.
    if has_bazel(d, tasks) and "do_compile" in tasks and "do_bazel_compile" not in running:
        running.setdefault("do_compile", "\n".join(d.getVar(name) or "" for name in functions(d, "do_compile")))
    return running


def has_bazel(d, tasks):
    """Whether a recipe brings Bazel along: by a class, by what it or one of its tasks depends on, or as a download."""
    import bb.data
    import bb.utils

    if bb.data.inherits_class("bazel-base", d):
        return True
    needs = list(bb.utils.explode_deps(d.getVar("DEPENDS") or ""))
    needs += [one.partition(":")[0] for task in tasks for one in (d.getVarFlag(task, "depends") or "").split()]
    if any(re.match(r"bazel[\w.+-]*-native$", one) for one in needs):
        return True
    return bool(re.search(r"/bazelbuild/bazel(?:isk)?/releases/", d.getVar("SRC_URI") or ""))


def tasks_that_may_run_bazel(d, tasks):
    """Tasks of a recipe that brings Bazel along which start what cannot be read here: they take turns too."""
    if not has_bazel(d, tasks):
        return []
    after = {task: (d.getVarFlag(task, "deps", False) or []) for task in tasks}
    return [
        task
        for task in sorted(between_sources_and_packages(after))
        if starts_something_unread("\n".join(d.getVar(name) or "" for name in functions(d, task)))
    ]


def problem(d, task, text):
    """Why a task's Bazel would not keep the limits of this host, or an empty text."""
    import bb.data

    jobs, file = d.getVar("EDGEAI_BAZEL_JOBS"), d.getVar("EDGEAI_BAZEL_RC")
    foreign = foreign_jobs(text, jobs, [name for name in functions(d, task) if name != task and handing_on(d.getVar(name))])
    if foreign:
        return f"{task} gives Bazel --jobs={foreign[0]}, which wins over the limits of this host; leave the option out"
    plain = _plain(text)
    if "--ignore_all_rc_files" in plain:
        return f"{task} gives Bazel --ignore_all_rc_files, with which it reads no limits of this host; leave the option out"
    exported = " ".join(d.getVar(name) or "" for name in ("BAZEL_STARTUP_OPTIONS", "EXTRA_BAZEL_ARGS"))
    names = (file, "EDGEAI_BAZEL_STARTUP")  # code in Python is not expanded
    of_class = bb.data.inherits_class("bazel", d) and file in exported
    bare = without_limits(text, names, d.getVar("BAZEL") if of_class else "")
    if not bare:
        called = [one for one in programs(text) if not one.endswith((".sh", ".py"))]
        named = any(name in plain for name in names) or of_class or f"--jobs={jobs}" in exported
        if called or named or task == "do_bazel_compile":
            return ""
    # BitBake expands the text, so variables are named without ${}.
    name = f" as {bare[0]}" if bare else ""
    return (
        f"{task} runs Bazel{name} without the limits of this host; put the variable EDGEAI_BAZEL_STARTUP between bazel and its command, "
        "or inherit bazel and call the variable BAZEL"
    )
