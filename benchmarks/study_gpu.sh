#!/usr/bin/env bash
# GPT-1 at its own size on a machine with a GPU that is lent for minutes and has no network
# (benchmarks/study_gpu.py says what is run there, and how it is set):
#
#   benchmarks/study_gpu.sh pack DATA        here: makes ./carried, 33 MB, to be taken along
#   benchmarks/study_gpu.sh run [RESULTS]    there, from the root of the repository
#
# DATA has books/train, books/valid, gpt1_bpe and tasks/{stsb,cola,sst2,mrpc,rte}. What the machine
# has: Python 3.12, JAX for CUDA, flax, optax, orbax-checkpoint, tokenizers, scikit-learn. What it lacks
# comes along, the text pipeline of 2018 with spaCy too, without sources and symbols: 13 MB of 60.

set -euo pipefail
cd "$(dirname "$0")/.."
carried=${CARRIED:-carried}
tasks="stsb cola sst2 mrpc rte"

pack() {
  local data=$1 made
  made=$(mktemp -d)
  mkdir -p "$carried/tasks"
  python3 -m gpt1_jax prepare --output="$made/tokens" --tokenizer=original \
    --vocab="$data/gpt1_bpe" --input "$data/books/train/*" "$data/books/valid/*" \
    --valid "$data/books/valid/*" > /dev/null
  # Ids are words of two bytes.
  tar -C "$made" -c tokens | xz --lzma2=preset=6,lc=0,lp=1,pb=1 > "$carried/tokens.tar.xz"
  for task in $tasks; do cp -rL "$data/tasks/$task" "$carried/tasks/"; done
  PACKED=$carried python3 benchmarks/study_gpu.py rules > "$carried/rules.json"
  wheels "$made"
  rm -r "$made"
  du -sh "$carried"
}

wheels() {
  local made=$1 platforms=() tag
  for tag in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 \
    manylinux_2_5 manylinux1; do
    platforms+=(--platform "${tag}_x86_64")
  done
  python3 -m pip install -q --no-deps --no-compile --only-binary=:all: --python-version 3.12 \
    --implementation cp "${platforms[@]}" --target "$made/site" \
    -c requirements.txt -r benchmarks/lent_gpu.txt spacy thinc blis cymem preshed murmurhash \
    srsly catalogue confection wasabi weasel spacy-legacy spacy-loggers smart_open cloudpathlib \
    wrapt typer click shellingham jinja2 markupsafe requests urllib3 idna certifi \
    charset_normalizer ftfy wcwidth
  (
    cd "$made/site"
    find . -type d \( -name tests -o -name include \) -prune -exec rm -r {} +
    find . -type f -regex '.*\.\(cpp\|c\|pyx\|pxd\|h\|hh\|pyi\)' -delete
    find . -name '*.so' -exec strip --strip-unneeded {} +
  )
  tar -C "$made" -c site | xz > "$carried/site.tar.xz"
}

run() {
  local results=${1:-benchmarks/results/study}
  export WORK=${WORK:-${TMPDIR:-/tmp}/gpt1_study}
  export PACKED=$WORK/packed JAX_PLATFORMS=${PLATFORM:-cuda}
  if [ ! -f "$PACKED/rules.json" ]; then
    mkdir -p "$PACKED"
    # Such a machine may have no xz.
    python3 -m tarfile -e "$carried/site.tar.xz" "$PACKED" &
    python3 -m tarfile -e "$carried/tokens.tar.xz" "$PACKED"
    wait $!
    cp -r "$carried/tasks" "$carried/rules.json" "$PACKED/"
  fi
  # Several processes share the GPU.
  export XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=3 PYTHONUNBUFFERED=1
  export PYTHONPATH="$PWD:$PACKED/site${PYTHONPATH:+:$PYTHONPATH}"
  exec python3 benchmarks/study_gpu.py run "$results"
}

case "${1:-}" in
  pack) pack "${2:?the folder of the data}" ;;
  run) run "${2:-}" ;;
  *)
    echo "usage: benchmarks/study_gpu.sh pack DATA | run [RESULTS]" >&2
    exit 2
    ;;
esac
