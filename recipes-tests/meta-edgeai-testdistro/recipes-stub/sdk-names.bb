SUMMARY = "TEST ONLY: names that image recipes mention for SDKs, which are never built here"
LICENSE = "MIT"
INHIBIT_DEFAULT_DEPS = "1"
inherit nopackages replaced-names
