SUMMARY = "TEST ONLY: pytest --automake"
DESCRIPTION = "One line for each test as Automake prints them: what ptest-runner and testimage count."
LICENSE = "CLOSED"
inherit allarch replaced-names
SRC_URI = "file://automake_lines.py"
S = "${UNPACKDIR}"
RDEPENDS:${PN} = "python3-pytest"
SITE = "/usr/lib/python${PYTHON_BASEVERSION}/site-packages"
do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${S}/automake_lines.py ${D}${SITE}/automake_lines.py
    # what pytest looks for: a distribution with an entry point
    install -d ${D}${SITE}/automake_lines-0.dist-info
    printf 'Metadata-Version: 2.1\nName: automake-lines\nVersion: 0\n' > ${D}${SITE}/automake_lines-0.dist-info/METADATA
    printf '[pytest11]\nautomake = automake_lines\n' > ${D}${SITE}/automake_lines-0.dist-info/entry_points.txt
}

FILES:${PN} = "${SITE}"
