#!/bin/sh
# The server of the example: compiles examples/digits_mlp.onnx where that has not been done yet, makes a token for one
# client, and serves. It needs onnx-fhe[compile,server] on the path; where a network is only served, no compiler is needed.
#
#   sh examples/service/server.sh [FOLDER]
set -eu
examples=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-build/service}
mkdir -p "$folder"
if [ ! -e "$folder/digits_mlp.server" ]; then
    onnx-fhe compile "$examples/digits_mlp.onnx" --calibration "$examples/digits_mlp.calibration.npz" \
        -o "$folder/digits_mlp.fhe" --halves --self-test 0
fi
if [ ! -e "$folder/tokens" ]; then
    (umask 077 && printf 'example:%s\n' "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" > "$folder/tokens")
fi
exec onnx-fhe serve "$folder/digits_mlp.server" --offer-client "$folder/digits_mlp.client" \
    --store "$folder/store" --tokens "$folder/tokens" --port "${PORT:-8080}"
