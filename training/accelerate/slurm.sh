#!/bin/bash
# Train on several machines, be pre-empted, and go on: `sbatch training/accelerate/slurm.sh run.yaml`
#SBATCH --job-name=sage
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
# SIGTERM comes to every process 300 seconds before the time is over, as it does when the job is pre-empted: the step
# under way is finished, a checkpoint is saved, and training ends with status 143. The job is put back into the queue,
# and `--resume_from_checkpoint auto` goes on from there. The output folder must be on a disk that all machines share.
set -uo pipefail

config=${1:?the YAML file of the run}
master=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
gpus=${SLURM_GPUS_ON_NODE:-4}

# Told to end, torch's launcher kills its processes after 30 seconds: it is not to listen, they do so themselves. This is
# torchrun, as `accelerate launch` can't be told so; settings such as `bf16: true` stand in the run's YAML file.
srun --kill-on-bad-exit=1 bash -c '
    trap "" TERM
    exec torchrun --signals-to-handle SIGINT,SIGHUP,SIGQUIT --nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" \
        --nproc-per-node '"$gpus"' --master-addr '"$master"' --master-port 29500 \
        -m sage_hf train --config '"$config"' --resume_from_checkpoint auto
'
status=$?
# torchrun ends with 1 whatever the status of its processes: an early end is told by the time, a failure by itself.
if [ $status -ne 0 ] && [ -n "${SLURM_JOB_END_TIME:-}" ] && [ $((SLURM_JOB_END_TIME - $(date +%s))) -le 300 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
