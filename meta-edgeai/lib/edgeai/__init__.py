# Python modules for this layer's classes and recipes; conf/layer.conf registers them with addpylib.
BBIMPORTS = ["bazelrun", "buildhost"]
