# For tests: while a recipe is parsed, write down which tasks of it run Bazel and what holds these apart, as JSON below
# ${TOPDIR}/bazel-census, a file per recipe.
# Decided by a wider rule than the layer's own, so that the two can be compared: a task counts if its code, or the code of a function
# that this calls, has the word bazel in the place of a program; the step that compiles counts wherever a Bazel class is inherited.
addhandler bazel_census
bazel_census[eventmask] = "bb.event.RecipeParsed"
python bazel_census () {
    import json, os

    files = [name for name, _ in d.getVar("__depends", False) or []]
    if not any(census_names_bazel(name) for name in files):
        return
    tasks = {}
    for task in d.getVar("__BBTASKS", False) or []:
        if census_runs_bazel(d, task):
            tasks[task] = {flag: d.getVarFlag(task, flag) or "" for flag in ("lockfiles", "number_threads", "prefuncs")}
    names = "BAZEL_JOBS BAZEL_STARTUP_OPTIONS JAVA_TOOL_OPTIONS EDGEAI_BAZEL_OPTIONS CUSTOM_BAZEL_FLAGS do_compile".split()
    out = os.path.join(d.getVar("TOPDIR"), "bazel-census")
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, d.getVar("PN") + ".json"), "w", encoding="utf-8") as file:
        json.dump({"tasks": tasks, "variables": {name: d.getVar(name) or "" for name in names}}, file, indent=1)
}

def census_names_bazel(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "bazel" in file.read().lower()
    except OSError:
        return False

def census_code(d, name, seen):
    import re

    if name in seen:
        return ""
    seen.add(name)
    text = d.getVar(name) or ""
    called = [word for word in set(re.findall(r"[A-Za-z_][\w-]*", text)) if d.getVarFlag(word, "func", False)]
    return text + "".join("\n" + census_code(d, word, seen) for word in sorted(called))

def census_runs_bazel(d, task):
    import re

    if task in ("do_compile", "do_bazel_compile") and bb.data.inherits_class("bazel-base", d):
        return True
    # A word bazel; behind one of the others it is only an argument.
    program = re.compile(r"(?:^|[\s/\"'`(])bazel(?:isk)?(?:-[\d.]+)?[\"']?(?=\s|,|$)|\S*bazel\S*\.(?:sh|py)\b|\$\{?BAZEL\b")
    harmless = re.compile(r"^\s*(?:rm|mkdir|install|cp|ln|mv|chmod|touch|sed|zip|if \[|elif \[|cd|create_cmdline_wrapper|patchelf\S*|for|export \w+=|#|:)")
    names = [task, *(d.getVarFlag(task, "prefuncs") or "").split(), *(d.getVarFlag(task, "postfuncs") or "").split()]
    names = [name for name in names if not name.startswith("edgeai_bazel")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(census_code(d, name, set()) for name in names))
    return any(program.search(line) and not harmless.match(line) for line in text.splitlines())
