#!/usr/bin/env bash
# Every row of an NVIDIA GPU, in calls of at most four minutes:
#
#   benchmarks/gpu.sh check|train|sample|finetune [RESULTS]
#
# on a machine that has JAX for CUDA, flax, optax, orbax-checkpoint, PyTorch and transformers, and no
# network. What such a machine lacks of what the package imports travels as wheels (5 MB), fetched
# beforehand where there is a network, for the Python of that machine:
#
#   python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#     --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
#     --platform manylinux2014_x86_64 -c requirements.txt -r benchmarks/lent_gpu.txt -d wheels
#
# Each call writes its rows as they are there (benchmarks/run.py), so that one which is cut off leaves
# some, and the same call again goes on. TINY=1 shows on any machine that it works, PLATFORM=cpu
# where there is no GPU. PEER names another peer's script.
set -euo pipefail
cd "$(dirname "$0")/.."
platform=${PLATFORM:-cuda}
results=${2:-benchmarks/results}
wheels=${WHEELS:-wheels}
if [ -d "$wheels" ]; then
  site=$(mktemp -d)
  python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl
  export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=3
mkdir -p "$results"

case "${1:-}" in
  check)
    status=0
    # Float32 is compared as such, not as TF32.
    JAX_DEFAULT_MATMUL_PRECISION=highest JAX_PLATFORMS="$platform,cpu" timeout 100 python3 benchmarks/one_step.py \
      | tee "$results/check.jsonl" || status=$?
    # pytest-benchmark warns beside pytest-xdist, and a warning is an error here.
    GPT1_TEST_PLATFORM="$platform,cpu" timeout 130 python3 -m pytest -q -p no:benchmark -p no:xdist \
      ${CHECKED:-tests/test_attention_gpu.py tests/test_decode.py tests/test_mlp.py \
      tests/test_residual_norm.py tests/test_cross_entropy.py tests/test_attention.py} 2>&1 | tee "$results/check.log" || status=$?
    exit $status
    ;;
  train | sample | finetune)
    if [ "$1" = train ] && [ -z "${SHARDS:-}" ]; then
      SHARDS=$(mktemp -d)/tokens
      export SHARDS
      JAX_PLATFORMS=cpu python3 -m gpt1_jax prepare --output="$SHARDS" --docs --vocab_size=8192 \
        > /dev/null || unset SHARDS
    fi
    JAX_PLATFORMS="$platform" exec python3 benchmarks/run.py "${WHERE:-gpu}" "$1" "$results"
    ;;
  *)
    echo "usage: benchmarks/gpu.sh check|train|sample|finetune [RESULTS]" >&2
    exit 2
    ;;
esac
