# TEST ONLY: PROVIDES and RPROVIDES from conf/replaced.toml, table [${BPN}].
def replaced_entry(d):
    import tomllib
    path = d.expand("${TESTDISTRO_LAYERDIR}/conf/replaced.toml")
    bb.parse.mark_dependency(d, path)
    with open(path, "rb") as f:
        table = tomllib.load(f)
    name = d.getVar("REPLACED_NAME") or d.getVar("BPN")
    if name not in table:
        bb.fatal(f"{path} has no table [{name}]: say there what this recipe replaces and why")
    return table[name]

python () {
    entry = replaced_entry(d)
    names = " ".join(entry.get("provides", [])).replace("@TARGET_PREFIX@", d.getVar("TARGET_PREFIX") or "")
    if names:
        d.appendVar("PROVIDES", " " + names)
    if entry.get("rprovides"):
        d.appendVar("RPROVIDES:" + d.getVar("PN"), " " + " ".join(entry["rprovides"]))
}
