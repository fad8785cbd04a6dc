#!/usr/bin/env bash
# On one GPU, each call under ten minutes: part by part, kept in results of their own.
#
#     bash experiments/throughput/gpu.sh PART [PYTHON] [FOLDER]
#
# PYTHON has jax[cuda13], this project's extra `weights`, and torch, timm and transformers. FOLDER
# takes results.json and results.md of the part, and the compilers' caches. Not yet run: no GPU was
# at hand when it was written. Where a part is cut short, the same call with the same FOLDER goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."
part=${1:?'a part: peers-B, peers-L, peers-H, peers-S, infer-B, infer-L, infer-H, attention, flags, memory, fp8, large'}
python=${2:-python}
folder=${3:-runs/throughput}/$part
mkdir -p "$folder"
export TORCHINDUCTOR_CACHE_DIR=$folder/inductor JAX_COMPILATION_CACHE_DIR=$folder/xla
run() {
  "$python" experiments/throughput/run.py --device=gpu --resume --output="$folder" \
    --minutes=9 --rounds=6 --seconds=5 "$@"
}
compiled='timm+compile=max-autotune-no-cudagraphs'
all=(timm timm+compile=default "$compiled" huggingface ours)
fast=(timm timm+compile=default timm+compile=max-autotune ours)
case $part in
  # Training; one model a call, since torch.compile takes a minute or more. What L and H hold in
  # memory does not fit side by side: --restart begins a process for each turn, from the caches.
  peers-S) run --models S/16 --works train --peers "${all[@]}" ;;
  peers-B) run --models B/16 --works train --peers timm+compile=default "$compiled" ours --reference timm+compile=default --restart ;;
  peers-L) run --models L/16 --works train --peers timm+compile=default ours --reference timm+compile=default --restart ;;
  peers-H) run --models H/14 --works train --peers timm+compile=default ours --reference timm+compile=default --restart ;;
  infer-B) run --models B/16 --works infer infer1 --peers "${fast[@]}" ;;
  infer-L) run --models L/16 --works infer infer1 --peers "${fast[@]}" ;;
  infer-H) run --models H/14 --works infer infer1 --peers "${fast[@]}" ;;
  # This project's own settings, each against `ours`.
  attention) run --models B/16 --works train --batch 256 --reference ours+attention_implementation=xla \
    --peers ours+attention_implementation=xla ours+attention_implementation=cudnn \
    ours+attention_implementation=pallas ours+unroll=1 ;;
  flags) run --models B/16 --works train --batch 256 --reference ours --peers ours \
    'ours+xla_flags=--xla_gpu_enable_cublaslt=true' 'ours+xla_flags=--xla_gpu_enable_triton_gemm=false' \
    ours+activation=gelu_tanh ours+moment_dtype=bfloat16 ;;
  memory) run --models B/16 --works train --batch 256 --reference ours --peers ours \
    ours+accum_steps=2 ours+remat=full ours+remat=attention ours+remat=dots+unroll=1 ;;
  fp8) run --models L/16 --works train --batch 128 --reference ours --peers ours ours+matmul=fp8 ;;
  large) run --models B/16 --sizes 384 --works train --batch 96 --reference ours+attention_implementation=xla \
    --peers ours+attention_implementation=xla ours+attention_implementation=cudnn ours+attention_implementation=pallas ;;
  *) echo "unknown part $part" >&2; exit 2 ;;
esac
