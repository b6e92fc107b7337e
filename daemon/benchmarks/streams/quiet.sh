#!/bin/sh
# All figures of streams that need a quiet machine, one after the other; about 22 minutes with --minutes 10.
#     quiet.sh [--minutes N] HAND_PYTHON [MODEL.tflite]
# HAND_PYTHON has opencv-python-headless and ai-edge-litert; MODEL is a classifier to compare with as well. edgeaid's own
# interpreter is $PYTHON (python3). $CORAL is the directory of models that soak.py uses with a stand-in for a stick.
set -eu
minutes=10
if [ "${1:-}" = --minutes ]; then minutes=$2; shift 2; fi
[ $# -ge 1 ] || { sed -n '2,6s/^# *//p' "$0"; exit 64; }
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
free_port() { "$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

echo "== test picture, 1 and 4 streams; a file beside loops written by hand, 1 and 4"
"$python" "$here/run.py" --hand "$1" ${2:+--model "$2"}

echo "== the same with two workers of the CPU, each with one thread"
"$python" "$here/run.py" --seconds 2 --workers 2 --hand "$1" ${2:+--model "$2"}

echo "== a real RTSP camera (GStreamer's server on the loopback), 1 and 4 streams"
port=$(free_port)
/usr/bin/python3 "$here/../../tests/streams/rtsp_server.py" "$port" >/dev/null &
server=$!
trap 'kill $server 2>/dev/null || :' EXIT
sleep 2
"$python" "$here/run.py" --source "rtsp://127.0.0.1:$port/test" --frames 1000
kill $server

echo "== faults by chance for $minutes minutes"
"$python" "$here/soak.py" --minutes "$minutes" ${CORAL:+--coral "$CORAL"} || echo "soak.py: a bound was missed"

echo "== the same camera back after its power was cut, five times"
for _ in 1 2 3 4 5; do
    (cd "$here/../.." && "$python" -m pytest -c pyproject.toml --rootdir . -p no:cacheprovider -q --durations=1 \
        tests/streams/test_capture.py -k real_rtsp_camera)
done
