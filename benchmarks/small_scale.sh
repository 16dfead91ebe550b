#!/usr/bin/env bash
# The small scale of the paper's tables on a machine with a GPU that is lent for minutes and has no
# network (benchmarks/small_scale.py says what is tried and run there):
#
#   benchmarks/small_scale.sh pack DATA          here: makes ./carried, to be taken along; `run`
#                                                does without carried/divided, which is half of it
#   benchmarks/small_scale.sh search [RESULTS]   there: rates and recipes, on a part of train
#   benchmarks/small_scale.sh run [RESULTS]      there: the tables and figures, and the weights
#
#   benchmarks/small_scale.sh unpack RESULTS WORKDIR   here: what `run` left, for `gpt1 reproduce`
#
# DATA has books/train, books/valid and tasks/. Each call leaves its files in RESULTS.
set -euo pipefail
cd "$(dirname "$0")/.."
carried=${CARRIED:-carried}

pack() {
  local data=$1 made
  made=$(mktemp -d)
  mkdir -p "$carried"
  python3 -m gpt1_jax prepare --output="$made/tokens" --vocab_size=8192 \
    --input "$data/books/train/*" "$data/books/valid/*" --valid "$data/books/valid/*" > /dev/null
  # Ids are words of two bytes.
  tar -C "$made" -c tokens | xz --lzma2=preset=6,lc=0,lp=1,pb=1 > "$carried/tokens.tar.xz"
  cp -rL "$data/tasks" "$carried/"
  python3 benchmarks/small_scale.py divide "$carried/tasks" "$carried/divided"
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 -c requirements.txt -r benchmarks/lent_gpu.txt \
    -d "$carried/wheels"
  rm -r "$made"
  du -sh "$carried"
}

there() {
  local results=${2:-benchmarks/results/small_scale}
  export WORK=${WORK:-${TMPDIR:-/tmp}/gpt1_small_scale} JAX_PLATFORMS=${PLATFORM:-cuda,cpu}
  if [ ! -d "$WORK/carried" ]; then
    mkdir -p "$WORK/carried" "$results"
    # Such a machine may have no xz.
    python3 -m tarfile -e "$carried/tokens.tar.xz" "$WORK/carried" 2> /dev/null
    cp -r "$carried/tasks" "$WORK/carried/"
    [ "$1" = run ] || cp -r "$carried/divided" "$WORK/carried/"
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$WORK/site" \
      "$carried"/wheels/*.whl
  fi
  # Several processes share the GPU, and what one of them has compiled.
  export XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=3 PYTHONUNBUFFERED=1
  export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
  # To try out the fastest of each small product takes longer than it saves.
  export XLA_FLAGS="--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false ${XLA_FLAGS:-}"
  export PYTHONPATH="$PWD:$WORK/site${PYTHONPATH:+:$PYTHONPATH}"
  mkdir -p "$results"
  exec python3 benchmarks/small_scale.py "$1" "$results"
}

unpack() {
  local results=$1 workdir=$2 run
  mkdir -p "$workdir/pretrained"
  tar -C "$workdir" -xzf "$results/runs.tar.gz"
  # Weights are a workdir of their own form; what their training left is in runs.tar.gz.
  for run in transformer lstm; do
    [ ! -f "$results/$run.tar.gz" ] || tar -C "$workdir/pretrained" -xzf "$results/$run.tar.gz"
  done
  for run in "$workdir"/finetuned/*/*; do
    cp -r "$workdir/pretrained/transformer/tokenizer" "$run/"
  done
}

case "${1:-}" in
  pack) pack "${2:?the folder of the data}" ;;
  search | run) there "$@" ;;
  unpack) unpack "${2:?what run left}" "${3:?a folder for it}" ;;
  *)
    echo "usage: benchmarks/small_scale.sh pack DATA | search [RESULTS] | run [RESULTS]" \
      "| unpack RESULTS WORKDIR" >&2
    exit 2
    ;;
esac
