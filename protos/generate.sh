#!/bin/sh
# Generates the Python modules of every .proto below this folder, in place.
# usage: protos/generate.sh PYTHON [DESTINATION]
#   PYTHON       an interpreter with grpcio-tools and mypy-protobuf (requirements.txt here)
#   DESTINATION  where the modules go; this folder unless given
set -eu
python=$1
source=$(cd "$(dirname "$0")" && pwd)
destination=${2:-$source}
cd "$source"
PATH="$(dirname "$python"):$PATH"
export PATH
"$python" -m grpc_tools.protoc --proto_path=. --python_out="$destination" --pyi_out="$destination" \
    $(find infosink -name '*.proto' | sort)
"$python" -m grpc_tools.protoc --proto_path=. --grpc_python_out="$destination" --mypy_grpc_out="quiet:$destination" \
    $(find infosink -name '*_service.proto' | sort)
