# Which files does this interpreter read? Its own, its standard library, and the folders of the shared libraries that are
# loaded when modules of it are imported. It runs unconfined, once, before any program does.
import importlib, json, os, struct, sys

if sys.version_info < (3, 8) or sys.implementation.name != "cpython":
    sys.exit("%s %s, where CPython 3.8 or newer is needed" % (sys.implementation.name, sys.version.split()[0]))

executable = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
with open(executable, "rb") as file:
    head = file.read(64)
    loader = None
    offset, size, count = struct.unpack_from("Q", head, 32)[0], *struct.unpack_from("HH", head, 54)
    for number in range(count):
        file.seek(offset + number * size)
        entry = file.read(size)
        if struct.unpack_from("I", entry)[0] == 3:
            file.seek(struct.unpack_from("Q", entry, 8)[0])
            loader = os.fsdecode(file.read(struct.unpack_from("Q", entry, 32)[0]).rstrip(b"\0"))

folders = [folder for folder in sys.path if os.path.isdir(folder) and not folder.endswith("-packages")]
for name in "math _hashlib _bz2 _lzma zlib _decimal unicodedata _ctypes _uuid _datetime".split():
    try:
        importlib.import_module(name)
    except ImportError:
        pass
with open("/proc/self/maps") as file:
    for line in file:
        path = line.split(None, 5)[5].strip() if line.count("/") else ""
        if ".so" in os.path.basename(path):
            folders.append(os.path.dirname(path))

folders = [folder for folder in dict.fromkeys(folders) if folder]
print(json.dumps({"executable": executable, "loader": loader, "version": sys.version.split()[0], "folders": folders}))
