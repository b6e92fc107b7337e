#!/bin/sh
# Ask edgeaid with curl alone: sh curl.sh PICTURE [SOCKET]
set -eu
picture=$1
socket=${2:-${EDGEAI_SOCKET:-/run/edgeai/edgeaid.sock}}

ask() { curl --silent --show-error --fail-with-body --unix-socket "$socket" "$@"; echo; }

ask http://localhost/v2/health/ready
ask http://localhost/v2/models/digits
ask --data-binary "@$picture" "http://localhost/edgeai/v1/models/digits/classify?max_results=1"
ask --data-binary "@$picture" --header "Accept: image/png" --output answer.png http://localhost/edgeai/v1/models/digits/classify
