// A process's place in its run, as torchrun, Slurm and our own launcher write it into the environment.
import { MiniGptError } from '../errors.js';

export interface Place {
  rank: number;
  size: number;
  /** Among the processes of this machine; the number of its GPU. */
  localRank: number;
  /** Where rank 0 listens. */
  address: string;
  port: number;
  /** A word that is the same on all processes of the run, empty where nothing gave one. */
  run: string;
}

type Environment = Record<string, string | undefined>;

/**
 * Undefined for a process alone (no WORLD_SIZE, or 1). `RANK`, `WORLD_SIZE`, `LOCAL_RANK` (default: RANK),
 * `MASTER_ADDR` and `MASTER_PORT`; without RANK and WORLD_SIZE those of srun: `SLURM_PROCID`, `SLURM_NTASKS`,
 * `SLURM_LOCALID`. Where torchrun's agent keeps MASTER_PORT for itself (`TORCHELASTIC_USE_AGENT_STORE`) the port is the
 * next one. Errors: ERR_ARGUMENT.
 */
export function placeOf(env: Environment = process.env): Place | undefined {
  const slurm = !env['RANK'] && !env['WORLD_SIZE'] && Boolean(env['SLURM_PROCID'] && env['SLURM_NTASKS']);
  const [rankName, sizeName, localName] = slurm
    ? (['SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'] as const)
    : (['RANK', 'WORLD_SIZE', 'LOCAL_RANK'] as const);
  if (!env[sizeName]) {
    if (env[rankName])
      throw new MiniGptError('ERR_ARGUMENT', `${rankName} is ${env[rankName]} but ${sizeName} is not set`);
    return undefined;
  }
  const size = integer(env, sizeName, 1, 1 << 20);
  if (size === 1) return undefined;
  const because = `with ${sizeName} ${size}`;
  const rank = integer(env, rankName, 0, size - 1, because);
  const localRank = env[localName] ? integer(env, localName, 0, size - 1) : rank;
  const address = env['MASTER_ADDR']?.trim();
  if (!address) {
    const cure = slurm
      ? '; in the job script: export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)' +
        ' (or unset SLURM_NTASKS to train with one process)'
      : '';
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `MASTER_ADDR is not set ${because}, expected the name of the machine of rank 0${cure}`,
    );
  }
  const agent = /^(1|true)$/i.test(env['TORCHELASTIC_USE_AGENT_STORE'] ?? '');
  const port = integer(env, 'MASTER_PORT', 1, agent ? 65534 : 65535, because) + (agent ? 1 : 0);
  const job = env['SLURM_JOB_ID'];
  const run =
    env['MINIGPT4_RUN'] ?? env['TORCHELASTIC_RUN_ID'] ?? (job ? `slurm ${job}.${env['SLURM_STEP_ID'] ?? ''}` : '');
  return { rank, size, localRank, address, port, run };
}

function integer(env: Environment, name: string, low: number, high: number, because = ''): number {
  const text = env[name]?.trim() ?? '';
  const value = /^\d{1,10}$/.test(text) ? Number(text) : NaN;
  if (!(value >= low && value <= high)) {
    const found = text === '' ? 'nothing' : `"${text}"`;
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `${name}${because && ` ${because}`}: expected a whole number from ${low} to ${high}, found ${found}`,
    );
  }
  return value;
}

/**
 * Threads that the launcher gives each of its processes (`MINIGPT4_THREADS`), undefined where it gave none. Errors:
 * ERR_ARGUMENT.
 */
export function threadsGiven(env: Environment = process.env): number | undefined {
  return env['MINIGPT4_THREADS'] ? integer(env, 'MINIGPT4_THREADS', 1, 4096) : undefined;
}
