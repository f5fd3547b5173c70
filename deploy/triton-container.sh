#!/usr/bin/env bash
# The official Triton container on this repository's models, on loopback: gRPC 8001, HTTP 8000, metrics 8002.
# Point the scheduler at it with `fairlane serve --backend 127.0.0.1:8001`. Arguments go to tritonserver.
set -euo pipefail

IMAGE="nvcr.io/nvidia/tritonserver:24.10-py3"
MODELS="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/model_repository"

fail() {
    echo "triton-container: $1" >&2
    exit 1
}

command -v docker >/dev/null ||
    fail "there is no docker command: install Docker Engine, or use 'make serve', which needs no container."
docker info >/dev/null 2>&1 ||
    fail "docker has no engine to talk to: start it (or set DOCKER_HOST), or use 'make serve', which needs no container."
compgen -G "$MODELS/*/[0-9]*/*.onnx" >/dev/null ||
    fail "model_repository/ has no model.onnx to serve: run 'make models' first."

# Triton would end with the first model that it does not load.
for model in "$MODELS"/*/; do
    versions=("$model"[0-9]*/)
    served=0
    for version in "${versions[@]}"; do
        number="${version%/}" && number="${number##*/}"
        if [[ "$number" =~ ^[0-9]+$ && -f "$version/model.onnx" ]] && ((10#$number > served)); then served="$((10#$number))"; fi
    done
    card="$model$served/model_card.json"
    if [[ -f "$card" ]] && grep -q '"loads_in_container": false' "$card"; then
        fail "$card: the container's ONNX Runtime does not load this model (the card's notes and warnings say why): use 'make serve', export it in an older format, or quantize it without 8 bits in blocks."
    fi
done

gpus=()
if docker info --format '{{range $name, $_ := .Runtimes}}{{$name}} {{end}}' 2>/dev/null | grep -qw nvidia; then
    gpus=(--gpus all)
fi

# --init: tritonserver is not process 1 and gets Ctrl-C. Docker's 64 MB of /dev/shm is too small for Triton.
exec docker run --rm --init "${gpus[@]}" --shm-size=1g \
    --publish 127.0.0.1:8000:8000 --publish 127.0.0.1:8001:8001 --publish 127.0.0.1:8002:8002 \
    --volume "$MODELS:/models:ro" \
    "$IMAGE" tritonserver --model-repository=/models --model-control-mode=explicit '--load-model=*' "$@"
