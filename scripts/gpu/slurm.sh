#!/usr/bin/env bash
# Pre-training on two machines of eight GPUs, as a Slurm job that goes on until it is done:
#
#   sbatch scripts/gpu/slurm.sh --workdir=/shared/runs/gpt1 --config.data.path=/shared/tokens
#
# What follows the file goes to `gpt1 train`. The folders are on a file system that both reach.
#SBATCH --job-name=gpt1
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --output=gpt1-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
# Two minutes before the end each process gets a SIGTERM: it saves, and ends with 75.
#SBATCH --signal=TERM@120
set -uo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
words=(
    train
    --config=configs/pretrain.py
    --config.model.dtype=bfloat16
    --coordinator="$first:8476"
    --num_processes="$SLURM_NTASKS"
    "$@"
)
# Each task has its own number, which only srun's own shell knows.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=0 bash -c 'exec .venv/bin/gpt1 "$@" --process_id="$SLURM_PROCID"' gpt1 "${words[@]}"
status=$?

# Saved, or a machine was lost: the same job once more. A mistake (2) and what is done (0) stay.
case $status in
    75 | 134 | 137 | 143) scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit "$status"
