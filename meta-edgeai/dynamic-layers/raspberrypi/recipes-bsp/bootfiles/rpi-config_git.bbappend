require conf/include/edgeai-power.inc

# Lines of the power profile and of features, into config.txt. Nothing is added for profile stock without features.
EDGEAI_CONFIG_TXT ?= ""
# nooelint: oelint.vars.inconspaces - the text goes into config.txt as it is, a space too
RPI_EXTRA_CONFIG:append:edgeai-device = "${@edgeai_config_txt(d)}"

def edgeai_config_txt(d):
    lines = edgeai_power(d, "").split("|") + d.getVar("EDGEAI_CONFIG_TXT").split("|")
    lines = [line for line in lines if line]
    # The recipe prints this variable with printf: \n is a new line there.
    return "\\n" + "\\n".join(["# edgeai"] + lines) if lines else ""
