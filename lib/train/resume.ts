// Whether a checkpoint belongs to the run that would go on with it.
import { MiniGptError } from '../errors.js';
import { show } from '../options.js';
import type { ModelFile, TrainingCheckpoint } from './checkpoint.js';
import type { TrainConfig } from './config.js';

/** Keys, besides all of the data sets', that decide which batches come and how they read: others may change on the way. */
const binding = [
  'run.seed',
  'run.mix',
  'run.batch_size_train',
  'run.accum_grad_iters',
  'run.feature_type',
  'model.max_txt_len',
  'model.end_sym',
  'model.prompt_path',
  'model.prompt_template',
];
const isBinding = (key: string): boolean => key.startsWith('datasets.') || binding.includes(key);
/** Keys that differ without changing anything that is computed. */
const isFree = (key: string): boolean =>
  /^run\.(resume_ckpt_path|output_dir|job_name|device|vision_device|gpu_memory|image_batch|threads|num_workers|keep|checkpoint_every|valid_|feature_cache|max_pixels)/.test(
    key,
  ) || /^model\.(ckpt|init|projection|path|llm)/.test(key);

/**
 * Errors: ERR_ARGUMENT where going on could not give the same as not stopping: other model files, other data, another number of processes,
 * another feature type. Returns notices of the other keys that have changed: they hold from here on, and the run is another one than without them.
 */
export function checkResume(
  checkpoint: TrainingCheckpoint,
  config: TrainConfig,
  models: readonly ModelFile[],
  size: number,
): string[] {
  const { path, state } = checkpoint;
  const fail = (why: string): never => {
    throw new MiniGptError('ERR_ARGUMENT', `${path} cannot be gone on with: ${why}`);
  };
  for (const role of new Set([...models, ...state.models].map((file) => file.role))) {
    const [then, now] = [state.models, models].map((files) => files.find((file) => file.role === role));
    if (then?.sha256 === now?.sha256) continue;
    const told = (file: ModelFile | undefined) =>
      file ? `${file.file} (SHA-256 ${file.sha256.slice(0, 12)}…)` : 'none';
    fail(`it was trained with another ${role}: expected ${told(then)}, found ${told(now)}`);
  }
  if (state.ranks.length !== size)
    fail(
      `it was trained by ${state.ranks.length} processes, each with its place in the data, expected as many, found ${size}`,
    );
  const then = flat(state.config);
  const now = flat(config.plain);
  const changed: string[] = [];
  for (const key of new Set([...then.keys(), ...now.keys()])) {
    const [before, after] = [then.get(key), now.get(key)];
    if (JSON.stringify(before) === JSON.stringify(after) || isFree(key)) continue;
    if (isBinding(key)) fail(`its data was another: ${key} was ${show(before ?? null)}, is ${show(after ?? null)}`);
    changed.push(`changed since the checkpoint: ${key}: ${show(before ?? null)} is now ${show(after ?? null)}`);
  }
  const steps = (config.run.max_epoch * config.run.iters_per_epoch) / config.run.accum_grad_iters;
  if (state.step > steps) fail(`it has ${state.step} steps, the configuration has ${steps} in all`);
  return changed;
}

/** Leaves by their dotted keys. */
function flat(value: unknown, at = ''): Map<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return new Map([[at, value]]);
  return new Map(Object.entries(value).flatMap(([key, part]) => [...flat(part, at === '' ? key : `${at}.${key}`)]));
}
